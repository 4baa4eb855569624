"""DICOMweb clients: the same questions and stores as `dicom_nodes.scu`, over HTTP."""

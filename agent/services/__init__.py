"""Services on our DICOM port beside storage and worklist: between the wire and the record."""

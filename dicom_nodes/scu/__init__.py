"""Service class users: what we ask of other DICOM nodes over DIMSE."""

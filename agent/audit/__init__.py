"""Who looked at and did what: the table, the DICOM audit message, and the way to the repository."""

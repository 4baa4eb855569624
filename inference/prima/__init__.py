"""Prima: DICOM MRI of the brain to diagnoses, referral and priority, at the published numbers."""

"""Synthetic head CT and brain MR studies with known pathology, for tests, demo and demo pack.

`study.make_study` makes the voxels and the truth, `dicom.write_dicom` the files,
`scenarios.demo_scenarios` lists the studies of the demo.
"""

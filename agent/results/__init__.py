"""Findings become DICOM objects: report (SR), masks (SEG), attention maps (PM), summary page (SC).

Modules are imported where they are used: `compose` pulls in highdicom, `context` and `own` do not.
"""

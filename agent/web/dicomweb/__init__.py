"""DICOMweb origin server (PS3.18): STOW-RS, QIDO-RS and WADO-RS over the spool and the results."""

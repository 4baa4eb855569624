"""DICOMweb: clients (peer, qido, stow, wado) and the wire side of our server (the rest)."""

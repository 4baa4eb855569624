"""Attentive probes on a frozen encoder: the diagnostic heads of NeuroVFM (arXiv 2511.18640)."""

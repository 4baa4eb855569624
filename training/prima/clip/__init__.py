"""Studies against their reports (arXiv 2509.18638, Methods, "Hierarchical vision transformer")."""

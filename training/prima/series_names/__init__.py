"""Pre-training of the series-name encoder (arXiv 2509.18638, Methods, "Series names")."""

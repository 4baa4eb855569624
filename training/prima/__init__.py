"""Training of Prima: tokenizer, series names, studies against reports, heads (arXiv 2509.18638)."""

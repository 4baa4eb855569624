"""The tokenizer's training (arXiv 2509.18638, Methods, "Volume tokenization")."""

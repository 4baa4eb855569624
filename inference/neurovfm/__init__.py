"""NeuroVFM: preprocessing, encoder and diagnostic heads with the official files and numbers."""

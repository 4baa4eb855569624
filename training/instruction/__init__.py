"""Visual instruction tuning of the findings model (arXiv 2511.18640, Methods, "Generative")."""

"""Vol-JEPA pretraining (arXiv 2511.18640): predict the features of hidden blocks of a volume."""

"""How the models learn: synthetic studies and training recipes over `inference/`."""

"""Recipe of the demonstration pack: a small NeuroVFM-shaped model trained on synthetic studies."""

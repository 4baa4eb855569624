"""Small NeuroVFM configurations and head-like volumes."""

from __future__ import annotations

import numpy as np

ENCODER = {
    "which": "vit",
    "params": {
        "embed_dim": 48,
        "depth": 2,
        "num_heads": 4,
        "token_dim": 1024,
        "mlp_ratio": 2.0,
        "embed_layer_cf": {"which": "voxel", "params": {"embed_dim": 18}},
        "pos_emb_cf": {"which": "pe3d", "params": {"d": 30, "d_size": 16, "hw_size": 16}},
    },
}
HEAD = {
    "which": "classify_then_aggregate",
    "params": {"hidden_dim": 16, "W_out": 3, "mlp_hidden_dims": [8]},
}


def head_volume(shape: tuple[int, int, int] = (8, 40, 40)) -> np.ndarray:
    """A bright ball in dark air as a CT of HU values, [K, R, C]."""
    axes = [np.linspace(-1, 1, n) for n in shape]
    radius = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    noise = np.random.default_rng(0).normal(0, 5, shape)
    return np.where(radius < 1.6, 40 + noise, -1000).astype(np.int16)


def affine(spacing: tuple[float, float, float], axes: str = "kSrPcL") -> np.ndarray:
    """(k, r, c, 1) -> LPS for axes like "kSrPcL": k towards superior, r posterior, c left."""
    towards = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0)}
    towards |= {"S": (0, 0, 1), "I": (0, 0, -1)}
    matrix = np.eye(4)
    for column, letter in enumerate(axes[1::2]):
        matrix[:3, column] = np.array(towards[letter]) * spacing[column]
    matrix[:3, 3] = (-20.0, -30.0, 10.0)
    return matrix

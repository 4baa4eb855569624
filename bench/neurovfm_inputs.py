"""Inputs of the NeuroVFM benchmark: a ViT-Base with random weights, packed studies, volumes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.neurovfm.batching import Packed
from inference.neurovfm.heads import build_head
from inference.neurovfm.model import VisionTransformer, build_encoder
from inference.neurovfm.tokens import Window

WIDTH, HEADS, LABELS = 768, 12, 82
SHORTEST, LONGEST = 1500, 4000
HEAD_CONFIG = {
    "which": "classify_then_aggregate",
    "params": {"hidden_dim": 512, "W_out": LABELS, "mlp_hidden_dims": [256]},
}
VOLUMES: dict[str, tuple[tuple[int, int, int], tuple[float, float, float], str]] = {
    "CT 512 x 512 x 32, 5 mm": ((32, 512, 512), (5.0, 0.488281, 0.488281), "CT"),
    "CT 512 x 512 x 160, 1 mm": ((160, 512, 512), (1.0, 0.488281, 0.488281), "CT"),
    "MR 256 x 256 x 176, 1 mm": ((176, 256, 256), (1.0, 0.9375, 0.9375), "MR"),
}


def study(lengths: tuple[int, ...], depth: int) -> tuple[VisionTransformer, Packed]:
    """A ViT-Base of some depth and a study of series of these lengths."""
    torch.manual_seed(0)
    config = {
        "which": "vit",
        "params": {
            "embed_dim": WIDTH,
            "depth": depth,
            "num_heads": HEADS,
            "token_dim": 1024,
            "embed_layer_cf": {"which": "voxel", "params": {"embed_dim": WIDTH - 30}},
            "pos_emb_cf": {"which": "pe3d", "params": {"d": 30}},
        },
    }
    total = sum(lengths)
    coords = torch.stack([torch.arange(total) % n for n in (40, 15, 14)], dim=1)
    windows = tuple(list(Window)[i % 4] for i in range(len(lengths)))
    return build_encoder(config).eval(), Packed(torch.rand(total, 1024), coords, lengths, windows)


def lengths(count: int, scale: float) -> tuple[int, ...]:
    """Mixed lengths between 1500 and 4000 tokens, the longest first met early."""
    spread = np.random.default_rng(12).permutation(np.linspace(SHORTEST, LONGEST, max(count, 2)))
    return tuple(int(n * scale) for n in spread[:count])


def head(tokens: int) -> tuple[Any, Tensor]:
    """A published-size head and a study's embeddings."""
    torch.manual_seed(1)
    torch.set_grad_enabled(False)
    return build_head(HEAD_CONFIG, WIDTH).eval(), torch.randn(tokens, WIDTH)


def volume(name: str) -> tuple[Any, Any, str]:
    """A noisy ball in air; no value is flat but the air."""
    shape, spacing, modality = VOLUMES[name]
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    tissue = np.where(rows**2 + columns**2 < 0.8, 40, -1000 if modality == "CT" else 0)
    array = (tissue + rng.normal(0, 8, shape)).astype(np.int16)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1.0
    return array, affine, modality

"""Small token caches and tables of studies for the recipes, without images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference.neurovfm.tokens import CT_WINDOWS, Window
from training.data.shards import Cache, CacheWriter
from training.data.studies import TokenizedSeries

GRID = (4, 6, 5)
TINY_ENCODER = {
    "which": "vit",
    "params": {
        "embed_dim": 48,
        "depth": 2,
        "num_heads": 3,
        "token_dim": 1024,
        "embed_layer_cf": {"which": "voxel", "params": {}},
        "pos_emb_cf": {"which": "pe3d", "params": {"d": 30, "d_size": 32, "hw_size": 32}},
    },
}


def series(
    name: str, modality: str, seed: int, grid: tuple[int, int, int] = GRID, bright: float = 0.0
) -> list[TokenizedSeries]:
    """The series of one volume: smooth in place, so that a neighbour tells of a token.

    `bright` is added to a block of tokens in the middle: a finding.
    """
    rng = np.random.default_rng(seed)
    cells = np.argwhere(np.ones(grid, dtype=bool))
    inside = np.linalg.norm((cells - np.array(grid) / 2 + 0.5) / grid, axis=1) < 0.62
    coords = cells[inside]
    phase = rng.uniform(0, 3, 3)
    wave = 0.5 + 0.3 * np.sin(coords @ np.array([0.9, 0.7, 0.5]) + phase[0])
    texture = np.linspace(-0.1, 0.1, 1024) * np.cos(coords[:, :1] + phase[1])
    values = np.clip(wave[:, None] + texture + rng.normal(0, 0.02, (len(coords), 1024)), 0, 1)
    middle = np.abs(coords - np.array(grid) // 2).max(axis=1) <= 1
    values[middle] = np.clip(values[middle] + bright, 0, 1)
    windows = CT_WINDOWS if modality == "CT" else [Window.MRI]
    tokens = (values * 255).astype(np.uint8)
    return [
        TokenizedSeries(f"{name}_{w.value}", modality, w.value, tokens, coords.astype("<i2"), grid)
        for w in windows
    ]


def token_cache(
    folder: Path, studies: int = 6, modalities: Sequence[str] = ("MR", "CT"), bright: float = 0.0
) -> Cache:
    """A cache of studies `s0`, `s1`, ...; every second one holds the finding."""
    writer = CacheWriter(folder)
    for number in range(studies):
        modality = modalities[number % len(modalities)]
        shown = bright * (number // len(modalities) % 2)
        writer.add(f"s{number}", series(f"v{number}", modality, number, bright=shown))
    writer.close()
    return Cache(folder)

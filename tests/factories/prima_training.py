"""Small caches and sizes for the training of Prima, without images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from training.prima import cache
from training.prima.cache import LatentSeries, LatentStudy
from training.prima.sizes import Layers, NameSize, StudySize
from training.prima.text_tower import TextConfig

NAMES = ("ax_t1", "sag_t2", "cor_flair")
SMALL = Layers(1, 2, 8, 16)
NAME_SIZE = NameSize(14, 10, SMALL)
SIZE = StudySize(SMALL, 2, 24, SMALL, 2, 16, NAME_SIZE, (16, 12))
TEXT = TextConfig(settings={"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64})


def blocks(folder: Path, studies: int = 3, count: int = 12) -> list[str]:
    """A block cache of smooth blocks; the names of its studies."""
    generator = torch.Generator().manual_seed(0)
    names = [f"s{number}" for number in range(studies)]
    ramp = torch.linspace(0, 1, 32)
    for name in names:
        level = torch.rand(count, 4, 1, 1, generator=generator)
        cache.write_blocks(cache.file_of(folder, name), name, [level * ramp * ramp[:, None]])
    return names


def latents(folder: Path, studies: int = 8, shift: float = 1.0) -> list[str]:
    """A latent cache whose odd studies are brighter by `shift`; the names of its studies.

    The series of a study share a pattern of their own, and each kind of series another.
    """
    names = [f"s{number}" for number in range(studies)]
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        own = rng.normal(0, 1, 256)
        series = [_series(kind, own + shift * (number % 2), rng) for kind in range(2 + number % 2)]
        study = LatentStudy(name, "MR BRAIN", tuple(series))
        cache.write_latents(cache.file_of(folder, name), study)
    return names


def _series(kind: int, own: np.ndarray, rng: np.random.Generator) -> LatentSeries:
    axis = kind % 3
    grid = tuple(1 if i == axis else 6 for i in range(3))
    pattern = np.random.default_rng(100 + kind).normal(0, 1, 256)
    values = own + pattern + rng.normal(0, 0.1, (36, 256))
    shape = tuple(2 if i == axis else 8 for i in range(3))
    return LatentSeries(
        name=NAMES[kind],
        axis=axis,
        grid=grid,  # type: ignore[arg-type]
        percent=5,
        bins=torch.from_numpy(rng.integers(3, 90, 36).astype(np.uint8)),
        numbers=torch.arange(36, dtype=torch.int32),
        latents=torch.from_numpy(values.astype(np.float16)).view(36, 2, *shape),
    )

"""Batches of cached studies: normalised tokens, their truth, and cheap augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inference.neurovfm.tokens import BLOCK, DEFAULT_STATS, Window
from training.demo_pack.cache import CachedStudy

Array = npt.NDArray[Any]

_BONE = list(Window).index(Window.BONE)
_BONE_KEPT = 0.3
_POSITIVE_SHARE, _IGNORED_SHARE = 26, 3
"""Of 255: a token with at least a tenth of its volume in the mask is positive; between this and a
hundredth it is neither."""


@dataclass(frozen=True)
class Augmentation:
    """How training batches are varied; the default leaves them as they are.

    Attributes:
        keep_tokens: share of each series' tokens that is drawn.
        drop_series: chance that an MR series is left out (two always stay); above 0, most CT
            studies also go without their bone window, which saves a third of the work.
        mirror: chance that a study is flipped left to right.
        jitter: standard deviation of a series' gain and offset.
    """

    keep_tokens: float = 1.0
    drop_series: float = 0.0
    mirror: float = 0.0
    jitter: float = 0.0


TRAINING = Augmentation(keep_tokens=0.3, drop_series=0.2, mirror=0.5, jitter=0.08)
NONE = Augmentation()


@dataclass(frozen=True, eq=False)
class Batch:
    """Studies of one modality. N tokens, B studies, C labels.

    Attributes:
        tokens: float32 [N, 1024], normalised.
        coords: int64 [N, 3].
        series_lengths: tokens of each series, study after study.
        study_lengths: tokens of each study.
        targets: float32 [N, C]; 1 inside a mask, 0 outside, NaN where it is neither.
        labels: float32 [B, C].
    """

    modality: str
    tokens: Tensor
    coords: Tensor
    series_lengths: list[int]
    study_lengths: list[int]
    targets: Tensor
    labels: Tensor


def make_batch(
    studies: Sequence[CachedStudy],
    augmentation: Augmentation = NONE,
    rng: np.random.Generator | None = None,
) -> Batch:
    """Stack studies of one modality, all of them varied by `augmentation`."""
    rng = rng or np.random.default_rng(0)
    grouped = [_series(study, augmentation, rng) for study in studies]
    parts = [part for group in grouped for part in group]
    return Batch(
        modality=studies[0].modality,
        tokens=torch.from_numpy(np.concatenate([p.tokens for p in parts])),
        coords=torch.from_numpy(np.concatenate([p.coords for p in parts])),
        series_lengths=[len(p.tokens) for p in parts],
        study_lengths=[sum(len(p.tokens) for p in group) for group in grouped],
        targets=_targets(np.concatenate([p.shares for p in parts])),
        labels=torch.from_numpy(np.stack([s.labels for s in studies]).astype(np.float32)),
    )


@dataclass(frozen=True, eq=False)
class _Part:
    tokens: Array
    coords: Array
    shares: Array


def _series(
    study: CachedStudy, augmentation: Augmentation, rng: np.random.Generator
) -> list[_Part]:
    mirrored = rng.random() < augmentation.mirror
    edges = np.concatenate([[0], study.lengths.cumsum()])
    chosen = _chosen_series(study, augmentation, rng)
    parts = []
    for index in chosen:
        count = int(study.lengths[index])
        kept = np.arange(edges[index], edges[index + 1])
        if augmentation.keep_tokens < 1.0:
            drawn = rng.permutation(count)[: max(1, int(count * augmentation.keep_tokens))]
            kept = kept[np.sort(drawn)]
        tokens = _normalised(study, index, kept, augmentation.jitter, rng)
        coords = study.coords[kept].astype(np.int64)
        if mirrored:
            tokens = tokens.reshape(-1, *BLOCK)[..., ::-1].reshape(len(kept), -1)
            coords[:, 2] = study.side[index] - 1 - coords[:, 2]
        parts.append(_Part(np.ascontiguousarray(tokens), coords, study.shares[kept]))
    return parts


def _chosen_series(
    study: CachedStudy, augmentation: Augmentation, rng: np.random.Generator
) -> list[int]:
    """Indices of the series to use; of a CT only the bone window, the least telling, may go."""
    count = len(study.lengths)
    if augmentation.drop_series == 0.0:
        return list(range(count))
    if study.modality == "CT":
        keep_bone = rng.random() < _BONE_KEPT
        return [i for i in range(count) if keep_bone or study.windows[i] != _BONE]
    kept = [i for i in range(count) if rng.random() >= augmentation.drop_series]
    return kept if len(kept) >= 2 else list(range(count))


def _normalised(
    study: CachedStudy, index: int, kept: Array, jitter: float, rng: np.random.Generator
) -> Array:
    window = int(study.windows[index])
    mean, std = DEFAULT_STATS[0][window], DEFAULT_STATS[1][window]
    values: Array = study.tokens[kept].astype(np.float32)
    values *= 1.0 / (255.0 * std)
    values -= mean / std
    if jitter:
        values *= 1.0 + jitter * rng.standard_normal()
        values += jitter * rng.standard_normal()
    return values


def _targets(shares: Array) -> Tensor:
    targets = np.full(shares.shape, np.nan, dtype=np.float32)
    targets[shares >= _POSITIVE_SHARE] = 1.0
    targets[shares <= _IGNORED_SHARE] = 0.0
    return torch.from_numpy(targets)

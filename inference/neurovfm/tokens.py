"""Turns a model-space volume into tokens: windows, foreground, 4 x 16 x 16 blocks, normalisation.

Shape legend: D slices, H rows, W columns of the model-space volume; N foreground tokens; a token is
the 1024 values of one block in (depth, row, column) order.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from inference.errors import InputError, VolumeError

Array = npt.NDArray[Any]
Mode = Literal["ct", "mri"]
Values = TypeVar("Values", bound=Any)

BLOCK = (4, 16, 16)
"""Voxels of a token along depth, rows and columns; models.md section 1, step 8."""
CT_FOREGROUND_HU = -500
MRI_FOREGROUND_PERCENTILE = 10.0
MRI_CLIP_PERCENTILES = (0.5, 99.5)
EPSILON = 1e-8


class Window(enum.StrEnum):
    """How a volume's values were scaled; the name is what official CT paths end with."""

    MRI = "mri"
    BRAIN = "BrainWindow"
    BLOOD = "BloodWindow"
    BONE = "BoneWindow"


CT_WINDOWS: Mapping[Window, tuple[float, float]] = {
    Window.BRAIN: (80.0, 40.0),
    Window.BLOOD: (200.0, 80.0),
    Window.BONE: (2800.0, 600.0),
}
"""Width and level in HU, in the order of the three series that a CT volume becomes."""

CT_FLOOR_HU = min(level - width / 2 for width, level in CT_WINDOWS.values())
"""No window tells values below this one apart, and all of them are background."""

Stats = tuple[Sequence[float], Sequence[float]]
DEFAULT_STATS: Stats = ((0.3141, 0.4139, 0.3184, 0.2719), (0.2623, 0.4059, 0.3605, 0.1875))
"""Means and standard deviations of the scaled values, in the order of `Window`."""


@dataclass(frozen=True, eq=False)
class SeriesTokens:
    """One scaled volume as tokens; a CT volume gives three of these that share coordinates.

    Attributes:
        tokens: float32 [N, 1024], scaled to 0..1, not normalised.
        coords: int64 [N, 3], (d, h, w) of each token in the grid.
        grid: tokens along depth, rows and columns.
        window: how the values were scaled.
        mode: "ct" or "mri".
        foreground: bool [d, h, w], True where every voxel of the block is foreground.
    """

    tokens: npt.NDArray[np.float32]
    coords: npt.NDArray[np.int64]
    grid: tuple[int, int, int]
    window: Window
    mode: Mode
    foreground: npt.NDArray[np.bool_]

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels of the volume along depth, rows and columns."""
        d, h, w = (n * side for n, side in zip(self.grid, BLOCK, strict=True))
        return d, h, w


def tokenize(volume: Array, modality: str, *, remove_background: bool = True) -> list[SeriesTokens]:
    """Cut a model-space volume [D, H, W] (HU or MR intensity) into tokens of each window.

    Args:
        volume: sides must be multiples of (4, 16, 16) and at least one block.
        modality: CT or MRI (MR), in any case.
        remove_background: leave out tokens that hold any background voxel.

    Raises:
        VolumeError: a side is no multiple of its block.
    """
    mode = read_mode(modality)
    values = volume.astype(np.float64, copy=False)
    blocks, grid = _cut(values)
    limits = _Limits.of(values, mode)
    foreground = blocks.min(axis=(3, 4, 5)) > limits.foreground
    kept = foreground if remove_background else np.ones_like(foreground)
    coords = np.argwhere(kept).astype(np.int64)
    chosen = blocks[kept].reshape(len(coords), math.prod(BLOCK))
    return [
        SeriesTokens(_scale(chosen, low, high), coords, grid, window, mode, foreground)
        for window, (low, high) in limits.windows.items()
    ]


def foreground_mask(volume: Array, modality: str) -> npt.NDArray[np.bool_]:
    """Voxels that count as tissue: above -500 HU, above the 10th percentile of an MR volume."""
    values = volume.astype(np.float64, copy=False)
    mask: npt.NDArray[np.bool_] = values > _Limits.of(values, read_mode(modality)).foreground
    return mask


def normalise(tokens: Values, window: Window, stats: Stats = DEFAULT_STATS) -> Values:
    """Centre and scale float tokens (array or tensor) by their window's statistics: a new array.

    The reference writes into the caller's batch instead, so that a second call normalises twice.
    """
    mean, std = window_stats(window, stats)
    normal: Values = (tokens - mean) / std
    return normal


def window_stats(window: Window, stats: Stats = DEFAULT_STATS) -> tuple[float, float]:
    """Mean and standard deviation of one window."""
    index = list(Window).index(window)
    return stats[0][index], stats[1][index]


def read_mode(modality: str) -> Mode:
    """The model's name of a modality.

    Raises:
        InputError: neither CT nor MR.
    """
    modes: Mapping[str, Mode] = {"ct": "ct", "mri": "mri", "mr": "mri"}
    mode = modes.get(modality.lower())
    if mode is None:
        raise InputError(f"modality {modality!r} is not read by NeuroVFM: it takes ct or mri")
    return mode


@dataclass(frozen=True)
class _Limits:
    """Foreground threshold and the (low, high) of every window."""

    foreground: float
    windows: Mapping[Window, tuple[float, float]]

    @staticmethod
    def of(values: npt.NDArray[np.float64], mode: Mode) -> _Limits:
        if mode == "ct":
            edges = {w: (lv - wd / 2, lv + wd / 2) for w, (wd, lv) in CT_WINDOWS.items()}
            return _Limits(CT_FOREGROUND_HU, edges)
        asked = (MRI_FOREGROUND_PERCENTILE, *MRI_CLIP_PERCENTILES)
        foreground, low, high = np.percentile(values, asked).tolist()
        return _Limits(foreground, {Window.MRI: (low, high)})


def _cut(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], tuple[int, int, int]]:
    """View of the volume as blocks [d, h, w, 4, 16, 16] and the grid they form."""
    if values.ndim != 3 or any(
        n % side or not n for n, side in zip(values.shape, BLOCK, strict=True)
    ):
        raise VolumeError(
            f"volume of shape {list(values.shape)} cannot be cut into blocks of {list(BLOCK)}: "
            "crop it to multiples first"
        )
    d, h, w = (n // side for n, side in zip(values.shape, BLOCK, strict=True))
    blocks = values.reshape(d, BLOCK[0], h, BLOCK[1], w, BLOCK[2]).transpose(0, 2, 4, 1, 3, 5)
    return blocks, (d, h, w)


def _scale(chosen: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float32]:
    """Clip to the window and scale to 0..1, in float64 until the end as the reference does."""
    clipped = np.clip(chosen, low, high)
    clipped -= low
    clipped /= high - low + EPSILON
    return clipped.astype(np.float32)

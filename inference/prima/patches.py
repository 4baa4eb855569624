"""A padded volume seen as tokens of 32 x 32 x 4 voxels, without a copy until they are asked for.

Tokens are numbered in raster order (z, y, x); their short side lies along the thin axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int, int, int]

PLANE_SIDE, THIN_SIDE = 32, 4
PLANE_VOXELS = 256
"""Rows and columns of every volume after resizing."""
FOREGROUND, FRACTION_FOREGROUND = 50, 0.5
"""Intensities above which a voxel counts: absolute, or for volumes that end below 5."""
SMALL_MAXIMUM = 5.0


@dataclass(frozen=True, eq=False)
class Patches:
    """All tokens of a volume.

    Attributes:
        volume: [Z, Y, X] padded to whole tokens, intensities as read.
        axis: the thin axis, 0, 1 or 2.
        maximum: largest intensity, which becomes 1; 1 where none is positive.
    """

    volume: Array
    axis: int
    maximum: np.float32

    @property
    def side(self) -> Shape:
        """Voxels of a token along z, y, x."""
        return token_side(self.axis)

    @property
    def grid(self) -> Shape:
        """Tokens along z, y, x."""
        z, y, x = (n // s for n, s in zip(self.volume.shape, self.side, strict=True))
        return z, y, x

    def __len__(self) -> int:
        z, y, x = self.grid
        return z * y * x

    @cached_property
    def coords(self) -> npt.NDArray[np.int64]:
        """int64 [N, 3]: first voxel (z, y, x) of every token."""
        places = np.indices(self.grid, dtype=np.int64).reshape(3, -1).T
        coords: npt.NDArray[np.int64] = places * np.array(self.side)
        return coords

    def gather(self, numbers: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float32]:
        """float32 [n, *side]: the tokens of these numbers (all), scaled to a maximum of 1."""
        blocks = _blocks(self.volume, self.side)
        if numbers is None:
            found = blocks.reshape(-1, *self.side)
        else:
            found = blocks[np.unravel_index(numbers, self.grid)]
        scaled: npt.NDArray[np.float32] = found.astype(np.float32) / self.maximum
        return scaled

    def upsampled(self, numbers: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float32]:
        """float32 [n, 1, ...]: as the tokenizer takes them, each slice of the thin axis twice."""
        doubled = np.repeat(self.gather(numbers), 2, axis=self.axis + 1)
        return doubled[:, np.newaxis]

    def foreground_percent(self) -> npt.NDArray[np.float64]:
        """float64 [N]: percentage of each token's voxels brighter than the threshold.

        The threshold is an absolute intensity, whatever the series' contrast: the published model
        was trained so.
        """
        small = float(self.volume.max()) < SMALL_MAXIMUM
        mask = self.volume > (FRACTION_FOREGROUND if small else FOREGROUND)
        counts = _count(mask, self.side)
        return counts.ravel() / float(np.prod(self.side)) * 100


def make_patches(array: Array, axis: int) -> Patches:
    """Pad a volume [Z, Y, X] with zeros to whole tokens, half of it on either side.

    Integers of up to 16 bits stay as they are: half the memory, and exact in float32 when read.
    """
    if array.dtype.kind not in "biu" or array.dtype.itemsize > 2:
        array = array.astype(np.float32)
    missing = [-n % s for n, s in zip(array.shape, token_side(axis), strict=True)]
    if any(missing):
        array = np.pad(array, [(n // 2, n - n // 2) for n in missing])
    maximum = np.float32(array.max())
    return Patches(array, axis, maximum if maximum > 0 else np.float32(1))


def padding_before(shape: Shape, axis: int) -> Shape:
    """Voxels that `make_patches` puts before the first one along z, y, x."""
    z, y, x = ((-n % s) // 2 for n, s in zip(shape, token_side(axis), strict=True))
    return z, y, x


def token_side(axis: int) -> Shape:
    """Voxels of a token along z, y, x when `axis` is the thin one."""
    z, y, x = (THIN_SIDE if i == axis else PLANE_SIDE for i in range(3))
    return z, y, x


def _blocks(volume: Array, side: Shape) -> Array:
    """A view [gz, gy, gx, *side]."""
    (z, y, x), (a, b, c) = volume.shape, side
    return volume.reshape(z // a, a, y // b, b, x // c, c).transpose(0, 2, 4, 1, 3, 5)


def _count(mask: npt.NDArray[np.bool_], side: Shape) -> npt.NDArray[np.int64]:
    """True voxels of every token [gz, gy, gx]."""
    (z, y, x), (a, b, c) = mask.shape, side
    rows = mask.view(np.uint8).reshape(z, y, x // c, c).sum(axis=3, dtype=np.uint16)
    planes = rows.reshape(z, y // b, b, x // c).sum(axis=2, dtype=np.uint16)
    counts: npt.NDArray[np.int64] = planes.reshape(z // a, a, y // b, x // c).sum(
        axis=1, dtype=np.int64
    )
    return counts

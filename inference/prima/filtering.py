"""Which tokens of a volume the model sees: the bright ones, and the dark ones they enclose.

Tokens are binned by their foreground percentage. The bins from a lower bound on are taken in
ascending order; up to bin 20, tokens that a bin's own tokens enclose follow it. A token that is
enclosed and bright stands there twice, as in the reference.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Values = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

STRICTEST_PERCENT = 5
ENOUGH_TOKENS = 25
"""The bound is lowered while no more than these remain; at 0 every token passes."""
LAST_FILLED_BIN = 20


def choose_tokens(values: Values, grid: tuple[int, int, int]) -> tuple[Numbers, int]:
    """Token numbers for the model, in its order, and the percentage that gave enough of them."""
    bins = _bins(values)
    enclosed = {lower: _enclosed(bins == lower, grid) for lower in _filled(bins)}
    kept: Numbers = np.zeros(0, np.int64)
    for percent in range(STRICTEST_PERCENT, -1, -1):
        kept = _above(bins, enclosed, percent)
        if len(kept) > ENOUGH_TOKENS:
            return kept, percent
    return kept, 0


def tokens_from(values: Values, grid: tuple[int, int, int], percent: int) -> Numbers:
    """Token numbers of all bins from `percent` on, in the model's order."""
    bins = _bins(values)
    enclosed = {n: _enclosed(bins == n, grid) for n in _filled(bins) if n >= percent}
    return _above(bins, enclosed, percent)


def _bins(values: Values) -> Numbers:
    """Bin t holds values of t up to, but not including, t + 1."""
    return np.floor(values).astype(np.int64)


def _filled(bins: Numbers) -> Iterator[int]:
    return (int(n) for n in np.unique(bins) if n <= LAST_FILLED_BIN)


def _above(bins: Numbers, enclosed: dict[int, Numbers], percent: int) -> Numbers:
    parts = []
    for lower in np.unique(bins[bins >= percent]):
        parts.append(np.flatnonzero(bins == lower))
        if lower in enclosed:
            parts.append(enclosed[int(lower)])
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _enclosed(members: npt.NDArray[np.bool_], grid: tuple[int, int, int]) -> Numbers:
    """Tokens that are no members but cannot be left without crossing one (6 neighbors).

    Filling on the grid of tokens equals filling the voxels that the tokens cover: whole blocks
    touch by faces exactly where their voxels do.
    """
    mask = members.reshape(grid)
    if min(_extent(mask)) < 3:
        return np.zeros(0, np.int64)  # nothing fits inside
    filled = ndimage.binary_fill_holes(mask)
    return np.flatnonzero(filled & ~mask)


def _extent(mask: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """Sides of the members' bounding box."""
    return tuple(int(np.ptp(places)) + 1 if len(places) else 0 for places in mask.nonzero())

"""The token filter: equal to filling voxels, whatever the pattern of bright and dark tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from inference.prima.filtering import choose_tokens, tokens_from

SIDE = (2, 3, 2)


def by_voxels(values: npt.NDArray[Any], grid: tuple[int, int, int], percent: int) -> list[int]:
    """The published order of operations: fill each bin's voxels, look for full tokens."""
    shape = tuple(n * s for n, s in zip(grid, SIDE, strict=True))
    blocks = [
        tuple(slice(i * s, i * s + s) for i, s in zip(np.unravel_index(n, grid), SIDE, strict=True))
        for n in range(len(values))
    ]
    found: list[int] = []
    for lower in range(percent, 101):
        members = [n for n, value in enumerate(values) if lower <= value < lower + 1]
        found += members
        if lower <= 20:
            mask = np.zeros(shape, bool)
            for n in members:
                mask[blocks[n]] = True
            filled = ndimage.binary_fill_holes(mask)
            found += [n for n, b in enumerate(blocks) if filled[b].all() and n not in members]
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 5), st.sampled_from([2, 3, 20]))
def test_filling_tokens_equals_filling_their_voxels(seed: int, percent: int, levels: int):
    """The fast filter gives the published list, duplicates and order included."""
    grid = (4, 5, 4)
    rng = np.random.default_rng(seed)
    values = rng.integers(0, levels, 80) * 1.25
    values[rng.random(80) < 0.1] = 100.0
    assert tokens_from(values, grid, percent).tolist() == by_voxels(values, grid, percent)


def test_an_enclosed_dark_token_is_kept_and_a_leak_lets_it_out():
    """A cavity inside one bin is filled; with one wall of another bin it is not."""
    values = np.full((5, 5, 5), 12.5)
    values[2, 2, 2] = 0.0
    center = int(np.ravel_multi_index((2, 2, 2), values.shape))
    assert center in tokens_from(values.ravel(), (5, 5, 5), 5)
    values[2, 2, 1] = 14.0
    values[2, 2, 0] = 0.0
    assert center not in tokens_from(values.ravel(), (5, 5, 5), 5)


@pytest.mark.parametrize(("bright", "percent"), [(26, 5), (25, 0)])
def test_more_than_25_tokens_end_the_search(bright: int, percent: int):
    """25 are not enough."""
    values = np.array([50.0] * bright + [0.0] * (64 - bright))
    assert choose_tokens(values, (1, 8, 8))[1] == percent


def test_every_token_passes_at_the_lowest_bound():
    """A volume without foreground keeps all its tokens."""
    kept, percent = choose_tokens(np.zeros(64), (1, 8, 8))
    assert (kept.tolist(), percent) == (list(range(64)), 0)

"""Dice and the pointing game."""

from __future__ import annotations

import numpy as np
import pytest

from inference.explain import dice, pointing_hit


def box(*slices: int | slice, shape: tuple[int, ...] = (6, 6, 6)):
    """A mask that is true in a box."""
    mask = np.zeros(shape, dtype=bool)
    mask[slices] = True
    return mask


def test_dice_is_twice_the_shared_part():
    """Half of each mask shared gives one half; nothing shared gives zero."""
    a, b = box(slice(0, 2)), box(slice(1, 3))
    assert dice(a, b) == pytest.approx(0.5)
    assert dice(a, a) == 1.0
    assert dice(a, box(slice(4, 6))) == 0.0


def test_two_empty_masks_agree():
    """Nothing found where nothing is, is right."""
    nothing = np.zeros((2, 2, 2), dtype=bool)
    assert dice(nothing, nothing) == 1.0
    assert dice(nothing, ~nothing) == 0.0


def test_pointing_hits_when_the_peak_is_in_the_mask():
    """Only the peak counts."""
    saliency = np.full((6, 6, 6), 0.9, dtype=np.float32)
    saliency[4, 4, 4] = 1.0
    assert pointing_hit(saliency, box(4, 4, 4))
    assert not pointing_hit(saliency, box(slice(0, 2)))


def test_pointing_tolerance_is_in_millimeters():
    """A peak two voxels of 5 mm away is a hit within 10 mm, not within 9 mm."""
    saliency = np.zeros((6, 6, 6), dtype=np.float32)
    saliency[0, 0, 0] = 1.0
    truth = box(2, 0, 0)
    assert pointing_hit(saliency, truth, spacing_mm=(5, 1, 1), tolerance_mm=10)
    assert not pointing_hit(saliency, truth, spacing_mm=(5, 1, 1), tolerance_mm=9)


def test_an_empty_map_or_mask_is_no_hit():
    """There is nothing to point at or with."""
    saliency = np.zeros((6, 6, 6), dtype=np.float32)
    assert not pointing_hit(saliency, box(0))
    assert not pointing_hit(saliency + 1, np.zeros((6, 6, 6), dtype=bool))

"""Tokens of a volume: cut, scaled, counted as the published loops do, without their loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from inference.prima.patches import Patches, make_patches
from inference.prima.series import PrimaSeries


def volume(slices: int, axis: int, dtype: str = "<u2", seed: int = 0) -> npt.NDArray[Any]:
    """Noise with slices along `axis`."""
    shape = [256, 256, 256]
    shape[axis] = slices
    return np.random.default_rng(seed).integers(0, 110, shape).astype(dtype)


def one_by_one(patches: Patches, array: npt.NDArray[Any]) -> tuple[list[Any], list[float]]:
    """Tokens and percentages cut in three loops from a padded float32 volume."""
    missing = [-n % s for n, s in zip(array.shape, patches.side, strict=True)]
    padded = np.pad(array.astype(np.float32), [(n // 2, n - n // 2) for n in missing])
    threshold = 0.5 if padded.max() < 5 else 50
    scaled = padded / padded.max() if padded.max() > 0 else padded
    tokens, values = [], []
    for start in patches.coords:
        block = tuple(slice(a, a + s) for a, s in zip(start, patches.side, strict=True))
        tokens.append(scaled[block])
        values.append(float(np.mean(padded[block] > threshold)) * 100)
    return tokens, values


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["u1", "<u2", "<i2", "<i4", "<f8"])
def test_tokens_equal_those_cut_one_by_one(axis: int, dtype: str):
    """Any thin axis and any pixel type, to the last bit."""
    array = volume(6, axis, dtype)
    patches = make_patches(array, axis)
    tokens, values = one_by_one(patches, array)
    assert len(patches) == len(tokens) == 2 * 64
    np.testing.assert_array_equal(patches.gather(), np.stack(tokens))
    np.testing.assert_array_equal(patches.foreground_percent(), values)


def test_tokens_are_read_by_number_and_doubled_on_demand():
    """Order and repetition as asked; every slice of the thin axis twice."""
    patches = make_patches(volume(8, 1), 1)
    numbers = np.array([70, 3, 70])
    some = patches.gather(numbers)
    np.testing.assert_array_equal(some, patches.gather()[numbers])
    doubled = patches.upsampled(numbers)
    assert doubled.shape == (3, 1, 32, 8, 32)
    for half in (0, 1):
        np.testing.assert_array_equal(doubled[:, 0, :, half::2], some)


@pytest.mark.parametrize(
    ("low", "high", "percent"),
    [
        (0.4, 4.99, 100.0),
        (0.0, 4.99, 0.0),
        (4.0, 5.0, 0.0),
        (51.0, 200.0, 100.0),
        (50.0, 60.0, 0.0),
    ],
)
def test_the_threshold_is_absolute_and_half_below_five(low: float, high: float, percent: float):
    """50 counts for volumes that reach 5, 0.5 for those that do not; both strictly."""
    array = np.full((4, 256, 256), low if percent == 0 else max(low, 0.51))
    array[0, 0, 0] = high
    values = make_patches(array, 0).foreground_percent()
    assert values[1:].tolist() == [percent] * 63


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 256, 256), "<u2"), np.full((4, 256, 256), -7.0), np.full((3, 256, 256), -7)],
    ids=["zero", "negative", "negative, padded"],
)
def test_volumes_without_a_positive_value_keep_their_scale(array: npt.NDArray[Any]):
    """Nothing is divided by zero or turned in sign."""
    patches = make_patches(array, 0)
    assert patches.gather().min() == array.min()
    assert patches.foreground_percent().max() == 0


def test_a_single_slice_becomes_one_slab():
    """One zero slice before, two after."""
    patches = make_patches(np.ones((1, 256, 256), "<u2"), 0)
    assert patches.volume.any(axis=(1, 2)).tolist() == [False, True, False, False]


def test_tokens_hold_no_second_copy_of_the_volume():
    """A volume of whole tokens is viewed, not copied, and small integers stay small."""
    array = volume(8, 0)
    assert make_patches(array, 0).volume is array


def test_kept_tokens_are_encoded_once_and_stand_where_the_filter_put_them():
    """Distinct tokens and their places give the kept tokens back, repetition and order included."""
    patches = make_patches(volume(8, 2), 2)
    kept = np.array([9, 3, 9, 70])
    series = PrimaSeries("T1", patches, patches.foreground_percent(), kept, 5, np.eye(4))
    numbers, places = series.distinct
    assert numbers.tolist() == [3, 9, 70]
    np.testing.assert_array_equal(patches.upsampled(numbers)[places], series.tokens)
    assert series.tokens.shape == (4, 1, 32, 32, 8)
    np.testing.assert_array_equal(series.grid_coords, np.array(np.unravel_index(kept, (8, 8, 2))).T)
    np.testing.assert_array_equal(series.coords, series.grid_coords * [32, 32, 4])

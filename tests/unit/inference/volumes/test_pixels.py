"""Stored values become physical values, in the narrowest type that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import dicom
from pydicom.dataset import Dataset

from inference.volumes import Limits, headers, pixels


def decode(folder: Path, datasets: list[Dataset]) -> pixels.Decoded:
    """Save and decode in the order given."""
    found = headers.read_headers(dicom.save_all(datasets, folder), Limits())
    return pixels.decode(found.frames)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, np.int16),
        ({"slope": 0.5}, np.float32),
        ({"intercept": -1024.5}, np.float32),
        ({"slope": 2.0}, np.int16),
        ({"slope": 1e6, "intercept": 0.0}, np.float32),
    ],
)
def test_the_type_follows_rescale_and_values(tmp_path: Path, options: dict[str, Any], dtype: Any):
    """Whole numbers stay whole, because the model's resampling treats them as such."""
    field = dicom.head if options.get("slope") != 1e6 else lambda p: np.full(p.shape[:-1], 1e6)
    decoded = decode(tmp_path, dicom.ct_series(4, 16, 16, pixels=field, **options))
    assert decoded.array.dtype == dtype
    assert decoded.failed == {}


def test_the_type_widens_for_large_values(tmp_path: Path):
    """A CT beyond 16 signed bits does not wrap around, also in slices that came before."""
    values = np.full((4, 16, 16), 7.0)
    values[2] = 60000
    decoded = decode(tmp_path, dicom.ct_series(4, 16, 16, pixels=values))
    assert decoded.array.dtype == np.int32
    np.testing.assert_array_equal(decoded.array, values)


@pytest.mark.parametrize(("intercept", "dtype"), [(0.0, np.uint16), (-5.0, np.int16)])
def test_unsigned_values_stay_unsigned(tmp_path: Path, intercept: float, dtype: Any):
    """Resampling undershoots at edges: whether values may fall below 0 is part of the numbers."""
    values = np.full((4, 16, 16), 7.0)
    decoded = decode(tmp_path, dicom.mr_series(4, 16, 16, pixels=values, intercept=intercept))
    assert decoded.array.dtype == dtype
    np.testing.assert_array_equal(decoded.array, values)


def test_padding_may_leave_the_unsigned_range(tmp_path: Path):
    """A CT whose values start at 0 still has padding, which becomes air."""
    values = np.full((4, 16, 16), 40.0)
    values[:, 0] = 0
    datasets = dicom.ct_series(4, 16, 16, pixels=values, intercept=0.0, PixelPaddingValue=0)
    assert set(np.unique(decode(tmp_path, datasets).array)) == {-1000, 40}


def test_padding_with_the_other_sign_is_understood(tmp_path: Path):
    """Some writers put -2000 as 63536 beside signed pixels."""
    values = np.full((4, 16, 16), 40.0)
    values[:, 0] = -2000
    datasets = dicom.ct_series(
        4, 16, 16, pixels=values, signed=True, intercept=0.0, PixelPaddingValue=63536
    )
    for ds in datasets:
        ds["PixelPaddingValue"].VR = "US"
    assert set(np.unique(decode(tmp_path, datasets).array)) == {-1000, 40}


def test_a_slope_of_zero_is_taken_for_one(tmp_path: Path):
    """A rescale that erases the image is a mistake of its writer."""
    decoded = decode(tmp_path, dicom.mr_series(4, 16, 16, RescaleSlope=0, RescaleIntercept=0))
    assert decoded.array.max() > 0


def test_a_modality_lut_is_applied(tmp_path: Path):
    """Where a table replaces slope and intercept the table decides."""
    datasets = dicom.mr_series(4, 16, 16, pixels=np.full((4, 16, 16), 3.0))
    for ds in datasets:
        lut = Dataset()
        lut.LUTDescriptor = [4, 0, 16]
        lut["LUTDescriptor"].VR = "US"
        lut.LUTData = [0, 100, 200, 321]
        lut["LUTData"].VR = "US"
        lut.ModalityLUTType = "US"
        ds.ModalityLUTSequence = [lut]
    assert set(np.unique(decode(tmp_path, datasets).array)) == {321.0}


def test_a_frame_that_is_not_there_is_named(tmp_path: Path):
    """Fewer decoded frames than wanted are failures, not zeros taken for an image."""
    datasets = dicom.ct_series(4, 16, 16)
    del datasets[1].PixelData
    decoded = decode(tmp_path, datasets)
    (failed,) = decoded.failed.values()
    assert "undecodable" in failed

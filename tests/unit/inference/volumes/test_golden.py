"""From DICOM files to tokens: the very numbers of the reference code."""

from __future__ import annotations

import numpy as np
import pytest
from factories import golden

from inference.neurovfm.preprocess import preprocess_volume
from inference.study import SeriesInput
from inference.volumes import read_series
from inference.volumes.model_grid import model_grid

CASE = golden.case("n1_preprocess")


@pytest.mark.parametrize(
    ("modality", "folder", "expected"),
    [
        ("CT", "dicom_ct_series", "study_dicom_series_dirs_in_list_ct"),
        ("MR", "dicom_mr_sagittal_series", "study_dicom_series_dirs_in_list_mr"),
    ],
)
def test_dicom_series_give_the_references_tokens(modality: str, folder: str, expected: str):
    """Geometry, rescale and pixel type of the reader are those the model was trained with."""
    files = tuple((CASE / "input" / folder).glob("*.dcm"))
    if not files:
        pytest.skip("the golden set of this checkout has no DICOM input")
    (volume,) = read_series(SeriesInput("1.2", modality, "", files)).volumes
    grid = model_grid(volume)
    prepared = preprocess_volume(
        grid.array, grid.affine, modality, "reference", spacing_mm=grid.spacing_mm
    )
    truth = golden.arrays(CASE / f"{expected}.npz")
    np.testing.assert_array_equal(
        np.concatenate([part.tokens for part in prepared.series]), truth["img"]
    )
    np.testing.assert_array_equal(
        np.concatenate([part.coords for part in prepared.series]), truth["coords"]
    )

"""Masks on source frames: the same as resampling the whole volume, for less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from factories import dicom, results

from agent.results import masks, planes
from agent.results.material import Material
from inference.explain import finding_mask, resample_to_volume
from inference.findings import Grounding

Located = tuple[Grounding, planes.Grid]
SERIES = {
    "axial": lambda: dicom.ct_series(n=18, rows=40, cols=32),
    "oblique": lambda: dicom.mr_series(n=18, rows=32, cols=40, plane="oblique"),
    "sagittal": lambda: dicom.mr_series(n=18, rows=32, cols=32, plane="sagittal"),
    "tilted": lambda: dicom.ct_series(n=18, rows=32, cols=32, tilt_deg=20.0),
}


@pytest.fixture(params=SERIES)
def located(request: pytest.FixtureRequest, tmp_path: Path) -> Located:
    """A grounding and the pixel grid of the series it was seen in."""
    context = results.positive(SERIES[request.param](), tmp_path, ground={"sigma_mm": 14.0})
    grounding = context.findings.findings[0].grounding
    assert grounding is not None
    stack = Material(context).stack(grounding)
    assert stack is not None
    return grounding, planes.grid(stack)


def volume_mask(grounding: Grounding, grid: planes.Grid) -> npt.NDArray[np.bool_]:
    """The mask of every frame, without any shortcut."""
    shape = (len(grid.positions_mm), grid.rows, grid.columns)
    return finding_mask(grounding, grid.affine, shape, grid.positions_mm)


def test_masks_equal_those_of_the_whole_volume(located: Located):
    """Cutting the token grid and the frames changes no voxel."""
    grounding, grid = located
    whole = volume_mask(grounding, grid)

    found = masks.masked_frames(grounding, grid)

    assert [k for k, _ in found] == np.flatnonzero(whole.any(axis=(1, 2))).tolist()
    for k, mask in found:
        np.testing.assert_array_equal(mask, whole[k])


def test_saliency_equals_that_of_the_whole_volume(located: Located):
    """The map's values are those of the plain resampling, frame by frame."""
    grounding, grid = located
    shape = (len(grid.positions_mm), grid.rows, grid.columns)
    whole = resample_to_volume(grounding, grid.affine, shape, grid.positions_mm)

    for k in range(shape[0]):
        np.testing.assert_allclose(masks.saliency_of(grounding, grid, k), whole[k], atol=1e-5)


def test_a_threshold_between_the_voxels_and_the_peak_still_gives_a_mask(tmp_path: Path):
    """Where no pixel center meets the peak token, the threshold is relative to what is met."""
    datasets = dicom.ct_series(n=8, rows=16, cols=16, spacing=(20.0, 12.0, 12.0))
    context = results.positive(
        datasets,
        tmp_path,
        ground={"center": (0.0, 0.0, 0.0), "token_mm": 4.0, "size": 48, "sigma_mm": 3.0},
    )
    grounding = context.findings.findings[0].grounding
    assert grounding is not None
    stack = Material(context).stack(grounding)
    assert stack is not None
    grid = planes.grid(stack)
    assert max(masks.saliency_of(grounding, grid, k).max() for k in range(8)) < grounding.threshold

    found = masks.masked_frames(grounding, grid)

    whole = volume_mask(grounding, grid)
    assert whole.any()
    assert sum(int(mask.sum()) for _, mask in found) == int(whole.sum())


def test_attention_outside_the_volume_gives_no_mask(tmp_path: Path):
    """A token grid that misses every frame masks nothing."""
    context = results.positive(dicom.ct_series(n=8, rows=16, cols=16), tmp_path)
    grounding = context.findings.findings[0].grounding
    assert grounding is not None
    stack = Material(context).stack(grounding)
    assert stack is not None
    grounding.grid_to_patient[:3, 3] += 5000.0

    assert masks.masked_frames(grounding, planes.grid(stack)) == []


def test_large_pixels_lie_over_the_source_pixels_they_cover(tmp_path: Path):
    """A large pixel's center is the mean of the centers of the pixels it stands for."""
    context = results.positive(dicom.mr_series(n=8, rows=32, cols=32, plane="oblique"), tmp_path)
    grounding = context.findings.findings[0].grounding
    assert grounding is not None
    stack = Material(context).stack(grounding)
    assert stack is not None
    fine, coarse = planes.grid(stack), planes.grid(stack, 4)

    covered = fine.positions_mm[3] + np.mean(
        [fine.affine[:3, 1] * r + fine.affine[:3, 2] * c for r in range(4, 8) for c in range(4)],
        axis=0,
    )

    np.testing.assert_allclose(coarse.positions_mm[3] + coarse.affine[:3, 1], covered, atol=1e-9)
    assert (coarse.rows, coarse.columns) == (8, 8)

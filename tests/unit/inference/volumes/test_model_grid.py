"""Models get right angles and even spacing; overlays keep the source geometry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from factories import dicom
from pydicom.dataset import Dataset

from inference.errors import VolumeError
from inference.neurovfm.preprocess import preprocess_volume
from inference.study import SeriesInput
from inference.volumes import ModelGrid, Volume, read_series
from inference.volumes.model_grid import model_grid

BALL_MM = (18.0, -22.0, 9.0)
RADIUS_MM = 14.0


def read(folder: Path, datasets: Sequence[Dataset]) -> Volume:
    """The one volume of a series."""
    files = dicom.save_all(datasets, folder)
    (volume,) = read_series(SeriesInput("1.2", "CT", "", files)).volumes
    return volume


def center_of(grid: ModelGrid | Volume, above: float) -> np.ndarray:
    """Center of mass in LPS of the voxels above a value."""
    index = np.argwhere(grid.array > above)
    return (index @ grid.affine[:3, :3].T + grid.affine[:3, 3]).mean(axis=0)


def assert_orthogonal(affine: np.ndarray):
    """The affine's axes stand at right angles."""
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(columns.T @ columns, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "oblique"])
@pytest.mark.parametrize("tilt_deg", [0.0, 20.0, -20.0])
def test_a_ball_stays_where_it_is(tmp_path: Path, plane: str, tilt_deg: float):
    """Straightened, a bleed keeps its place in the patient within half a pixel, and its shape."""
    field = dicom.ball(BALL_MM, RADIUS_MM, 3000, base=lambda p: np.full(p.shape[:-1], -1000.0))
    volume = read(
        tmp_path, dicom.ct_series(32, 64, 64, plane=plane, tilt_deg=tilt_deg, pixels=field)
    )
    grid = model_grid(volume)
    assert_orthogonal(grid.affine)
    assert np.linalg.norm(center_of(grid, 1000) - BALL_MM) < 1.5
    assert grid.array.dtype == volume.array.dtype
    spread = np.ptp(np.argwhere(grid.array > 1000), axis=0) * grid.spacing_mm
    np.testing.assert_allclose(spread, 2 * RADIUS_MM, atol=9)


@pytest.mark.parametrize("tilt_deg", [15.0, -15.0])
def test_straightening_loses_no_tissue(tmp_path: Path, tilt_deg: float):
    """The canvas grows to hold every shifted frame, and what it adds is air."""
    volume = read(tmp_path, dicom.ct_series(tilt_deg=tilt_deg))
    grid = model_grid(volume)
    assert grid.array.shape[1] > volume.array.shape[1]
    assert grid.array.shape[2] == volume.array.shape[2]
    tissue = np.count_nonzero(volume.array > -500)
    assert np.count_nonzero(grid.array > -500) == pytest.approx(tissue, rel=0.02)
    assert grid.array.min() == -1000


def test_a_straight_volume_is_not_copied(tmp_path: Path):
    """The usual series costs nothing."""
    volume = read(tmp_path, dicom.ct_series())
    grid = model_grid(volume)
    assert grid.array is volume.array
    np.testing.assert_allclose(grid.affine, volume.affine, atol=1e-6)
    assert grid.spacing_mm == (5.0, 3.0, 3.0)


def test_missing_slices_are_interpolated_in_place(tmp_path: Path):
    """After a gap the slices still lie where they were, and the gap is filled between them."""
    ramp = np.arange(24.0)[:, None, None] * 10 + np.zeros((24, 64, 64))
    datasets = dicom.ct_series(pixels=ramp)
    volume = read(tmp_path, [*datasets[:10], *datasets[13:]])
    grid = model_grid(volume)
    np.testing.assert_array_equal(grid.array[:, 5, 5], np.arange(24) * 10)
    np.testing.assert_allclose(grid.affine[:3, 0], [0, 0, 5.0], atol=1e-6)


def test_rounded_positions_do_not_change_the_spacing(tmp_path: Path):
    """3.3333 mm as decimal text three times is one spacing, not three."""
    volume = read(tmp_path, dicom.ct_series(spacing=(10 / 3, 3.0, 3.0)))
    assert model_grid(volume).spacing_mm[0] == 3.33333


def test_frames_kilometers_apart_are_refused(tmp_path: Path):
    """One wild position cannot make the model's grid fill the memory."""
    datasets = dicom.ct_series()
    datasets[-1].ImagePositionPatient = [0, 0, 900000]
    with pytest.raises(VolumeError, match="too far apart"):
        model_grid(read(tmp_path, datasets))


@pytest.mark.parametrize(("modality", "tilt_deg"), [("CT", 0.0), ("CT", 15.0), ("MR", 0.0)])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "oblique"])
def test_tokens_lie_within_half_a_token_of_the_truth(
    tmp_path: Path, modality: str, plane: str, tilt_deg: float
):
    """From file to token: the brightest tokens' center is the ball's, in LPS."""
    base = dicom.head if modality == "CT" else dicom.mr_head
    field = dicom.ball(BALL_MM, RADIUS_MM, 60 if modality == "CT" else 590, base=base)
    volume = read(
        tmp_path,
        dicom.series(
            modality, 30, 80, 80, spacing=(5, 2, 2), plane=plane, tilt_deg=tilt_deg, pixels=field
        ),
    )
    without = read(
        tmp_path / "without",
        dicom.series(
            modality, 30, 80, 80, spacing=(5, 2, 2), plane=plane, tilt_deg=tilt_deg, pixels=base
        ),
    )
    values = []
    for one in (volume, without):
        grid = model_grid(one)
        prepared = preprocess_volume(
            grid.array, grid.affine, modality, remove_background=False, spacing_mm=grid.spacing_mm
        )
        values.append(prepared.series[0])
    change = np.abs(values[0].tokens - values[1].tokens).mean(axis=1)
    change[change < change.max() * 0.2] = 0
    places = values[0].coords @ prepared.grid_to_patient[:3, :3].T + prepared.grid_to_patient[:3, 3]
    found = (places * change[:, None]).sum(axis=0) / change.sum()
    token_mm = np.linalg.norm(prepared.grid_to_patient[:3, :3], axis=0)
    assert np.all(np.abs(found - BALL_MM) < token_mm.max() / 2)

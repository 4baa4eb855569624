"""Saliency lands on the source frames where the model looked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from factories import dicom

from inference.explain import finding_mask, key_slice, resample_to_volume
from inference.findings import Grounding

TOKEN_MM = (16.0, 16.0, 16.0)


def grounding(saliency: Any, affine: Any, threshold: float = 0.5):
    """A grounding of a made-up series."""
    return Grounding("1.2", np.asarray(saliency, np.float32), affine, threshold, "1.2.3")


def token_grid():
    """Affine of a grid of 16 mm tokens."""
    return dicom.series_affine(8, 12, 12, TOKEN_MM, center=(3.0, -5.0, 7.0))


def center_of_mass_mm(values: Any, affine: Any):
    """Center of mass in LPS."""
    points = dicom.voxel_positions(affine, values.shape)
    return (points * values[..., None]).sum(axis=(0, 1, 2)) / values.sum()


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "oblique"])
@pytest.mark.parametrize("tilt_deg", [0.0, 18.0])
def test_a_token_lands_within_half_a_token_of_its_place(plane: str, tilt_deg: float):
    """The center of mass of one hot token survives resampling, in LPS, for sheared series too."""
    saliency = np.zeros((8, 12, 12))
    saliency[3, 7, 4] = 1.0
    grid = token_grid()
    truth = grid @ [3, 7, 4, 1]
    source = dicom.series_affine(
        40, 96, 80, (4.0, 2.0, 2.5), plane=plane, tilt_deg=tilt_deg, center=(3.0, -5.0, 7.0)
    )
    resampled = resample_to_volume(grounding(saliency, grid), source, (40, 96, 80))
    found = center_of_mass_mm(resampled, source)
    assert resampled.max() > 0.8
    assert np.linalg.norm(found - truth[:3]) < 2.0


def test_nothing_is_painted_beyond_half_a_token_outside_the_grid():
    """Voxels farther than half a token outside are zero, voxels within it are not."""
    grid = np.diag([10.0, 10.0, 10.0, 1.0])
    source = np.eye(4)
    source[:3, 3] = -10
    resampled = resample_to_volume(grounding(np.ones((2, 2, 2)), grid), source, (31, 31, 31))
    inside = resampled[10, 10] > 0
    assert inside[5:26].all()
    assert not inside[:5].any()
    assert not inside[26:].any()
    assert set(np.unique(resampled)) == {0.0, 1.0}


def test_frame_positions_win_over_the_affine():
    """Unevenly spaced frames are sampled where they lie, not where even spacing puts them."""
    saliency = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((5, 3, 3)) / 4
    positions = np.array([[0.0, 0, 0], [3, 0, 0], [4, 0, 0]])
    resampled = resample_to_volume(
        grounding(saliency, np.eye(4)), np.eye(4), (3, 3, 3), positions_mm=positions
    )
    assert resampled[:, 1, 1] == pytest.approx([0.0, 0.75, 1.0])


def test_the_mask_is_never_empty_for_a_peak_between_two_slices():
    """A peak no voxel center hits still gives a mask, around the peak."""
    saliency = np.zeros((3, 3, 3))
    saliency[1, 1, 1] = 1
    source = np.diag([1.3, 0.9, 0.9, 1.0])
    source[:3, 3] = [0.6, 0.7, 0.7]
    mask = finding_mask(grounding(saliency, np.eye(4), threshold=0.9), source, (2, 2, 2))
    assert mask[0, 0, 0]
    assert mask.sum() < 8


def test_the_mask_stays_inside_the_foreground():
    """A finding does not lie in air."""
    foreground = np.zeros((3, 3, 3), dtype=bool)
    foreground[:, :, 1] = True
    mask = finding_mask(
        grounding(np.ones((3, 3, 3)), np.eye(4)), np.eye(4), (3, 3, 3), foreground=foreground
    )
    assert (mask == foreground).all()


def test_an_empty_map_has_an_empty_mask():
    """Zero saliency never reaches the mask, whatever the threshold."""
    empty = grounding(np.zeros((3, 3, 3)), np.eye(4), threshold=0.0)
    assert not finding_mask(empty, np.eye(4), (3, 3, 3)).any()


def test_the_key_slice_has_the_most_saliency():
    """The slice with the largest salient area wins; among equals the middle one."""
    saliency = np.zeros((9, 4, 4), dtype=np.float32)
    saliency[2, :, :] = 0.3
    saliency[5:8, 1:3, 1:3] = 0.9
    assert key_slice(saliency, threshold=0.5) == 6
    assert key_slice(saliency, threshold=0.0) == 2

"""The agent's own preprocessing: safe where the reference would mislead."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from factories.neurovfm import affine, head_volume

from inference.errors import InputError, VolumeError
from inference.neurovfm.preprocess import normalise, preprocess_volume, tokenize
from inference.neurovfm.tokens import Window

ORIENTATIONS = ["kSrPcL", "kIrPcL", "kRrIcP", "kLrIcA", "kPrIcL", "kArScR"]


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_a_bright_spot_is_found_where_it_lies_in_the_patient(axes: str):
    """The token grid's affine is true for axial, sagittal and coronal stacks, either way up."""
    volume = head_volume((12, 64, 64)).astype(np.float32)
    volume[5:7, 20:28, 40:48] = 700
    matrix = affine((4.0, 1.0, 1.0), axes)
    centre = matrix @ [5.5, 23.5, 43.5, 1.0]

    prepared = preprocess_volume(volume, matrix, "CT")
    bone = next(part for part in prepared.series if part.window is Window.BONE)
    brightest = bone.coords[bone.tokens.max(axis=1).argmax()]
    found = prepared.grid_to_patient @ [*brightest, 1.0]
    steps = np.linalg.norm(prepared.grid_to_patient[:3, :3], axis=0)
    np.testing.assert_allclose(steps, [16, 16, 16], atol=1e-6)
    assert np.abs(found - centre)[:3].max() <= 16


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_depth_is_the_direction_of_acquisition(axes: str):
    """Slices stay slices, whatever the sizes: the reference's rule would take the shortest side."""
    volume = head_volume((44, 36, 72))
    prepared = preprocess_volume(volume, affine((3.0, 1.0, 1.0), axes), "CT")
    depth = prepared.grid_to_patient[:3, 0]
    normal = affine((3.0, 1.0, 1.0), axes)[:3, 0]
    assert abs(depth @ normal) == pytest.approx(np.linalg.norm(depth) * np.linalg.norm(normal))
    assert prepared.size == (32, *(n // 16 * 16 for n in prepared.size[1:]))


def test_equal_sides_are_read():
    """40 x 40 x 40 voxels of unequal spacing, which the reference skips."""
    volume = head_volume((40, 40, 40))
    assert preprocess_volume(volume, affine((2.0, 1.0, 1.0)), "CT").token_count > 0
    with pytest.raises(VolumeError, match="no slice axis"):
        preprocess_volume(volume, affine((2.0, 1.0, 1.0)), "CT", mode="reference")


def test_isotropic_volumes_are_cut_from_top_to_bottom():
    """A sagittal 1 mm acquisition becomes axial slabs, as the reference does on purpose."""
    volume = head_volume((40, 48, 48))
    prepared = preprocess_volume(volume, affine((1.0, 1.0, 1.0), "kRrIcP"), "CT")
    np.testing.assert_allclose(np.abs(prepared.grid_to_patient[:3, 0]), [0, 0, 16], atol=1e-9)


def test_samples_beyond_a_thick_stack_are_air():
    """10 mm slices reach past the last one when cut to 4 mm; soft tissue must not appear there."""
    volume = np.full((8, 48, 48), 40, dtype=np.int16)
    volume[:, :2] = -1000
    matrix = affine((10.0, 1.0, 1.0), "kIrPcL")
    safe = preprocess_volume(volume, matrix, "CT").series[0]
    reference = preprocess_volume(volume, matrix, "CT", mode="reference").series[0]
    assert not safe.foreground[-1].any()
    assert reference.foreground[-1].any()


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (np.full((8, 40, 40), 7, np.int16), "constant"),
        (np.full((8, 40, 40), np.nan, np.float32), "no numbers"),
        (head_volume((2, 40, 40)), "too small"),
        (head_volume((8, 10, 40)), "too small"),
        (np.where(np.indices((8, 40, 40)).sum(0) % 2, 0, -1000).astype(np.int16), "no token"),
        (head_volume()[0], "geometry"),
    ],
)
def test_unreadable_volumes_are_skipped_with_their_reason(volume: np.ndarray, message: str):
    """Each gives a sentence that can be shown, and never a number."""
    with pytest.raises(VolumeError, match=message):
        preprocess_volume(volume, affine((4.0, 1.0, 1.0)), "CT")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_volumes_without_geometry_are_refused(value: float):
    """Missing positions or parallel axes cannot be mapped back."""
    broken, flat = affine((4.0, 1.0, 1.0)), affine((4.0, 1.0, 1.0))
    broken[0, 3] = value
    flat[:3, 0] = flat[:3, 1]
    for matrix in (broken, flat):
        with pytest.raises(VolumeError, match="geometry"):
            preprocess_volume(head_volume(), matrix, "CT")


def test_rounded_direction_cosines_lose_no_voxel():
    """Six-digit cosines shorten the affine's columns; the exact spacing keeps the size."""
    volume = head_volume((8, 128, 128))
    matrix = affine((4.0, 0.5, 0.5))
    shortened = matrix.copy()
    shortened[:3, :3] *= 1 - 4e-7
    exact = preprocess_volume(volume, matrix, "CT")
    given = preprocess_volume(volume, shortened, "CT", spacing_mm=(4.0, 0.5, 0.5))
    assert exact.size == given.size == (8, 64, 64)


def test_unknown_modalities_are_refused():
    """Neither CT nor MR: no windows are guessed."""
    with pytest.raises(InputError, match="PT"):
        preprocess_volume(head_volume(), affine((4.0, 1.0, 1.0)), "PT")


def test_tokens_hold_their_blocks_in_raster_order():
    """Token (d, h, w) holds the values of its 4 x 16 x 16 block, depth first."""
    volume = np.arange(8 * 32 * 48, dtype=np.float64).reshape(8, 32, 48)
    series = tokenize(volume, "mri", remove_background=False)[0]
    assert series.grid == (2, 2, 3)
    assert series.size == volume.shape
    low, high = np.percentile(volume, (0.5, 99.5))
    expected = (np.clip(volume, low, high) - low) / (high - low + 1e-8)
    for token, (d, h, w) in zip(
        series.tokens, itertools.product(range(2), range(2), range(3)), strict=True
    ):
        block = expected[d * 4 : d * 4 + 4, h * 16 : h * 16 + 16, w * 16 : w * 16 + 16]
        np.testing.assert_array_equal(token, block.ravel().astype(np.float32))


def test_normalising_makes_a_new_array():
    """The caller's tokens stay what they were."""
    tokens = np.full((2, 1024), 0.5, np.float32)
    normal = normalise(tokens, Window.BONE)
    assert (tokens == 0.5).all()
    np.testing.assert_allclose(normal, (0.5 - 0.2719) / 0.1875, rtol=1e-6)
    assert normal.dtype == np.float32

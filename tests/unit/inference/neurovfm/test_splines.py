"""Resampling by separate axes equals SimpleITK's in every bit, or leaves the work to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own abbreviation

from inference.neurovfm import splines

WANTED = (1.0, 1.0, 4.0)


def turned(x: float, z: float) -> list[float]:
    """Directions of a volume turned about two axes."""
    about_x = np.array([[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]])
    about_z = np.array([[math.cos(z), -math.sin(z), 0], [math.sin(z), math.cos(z), 0], [0, 0, 1]])
    found: list[float] = (about_x @ about_z).ravel().tolist()
    return found


def image(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    dtype: type = np.int16,
    direction: list[float] | None = None,
) -> sitk.Image:
    """Noise around 100, a third of it below 0 where the type allows, with a constant corner."""
    values = np.random.default_rng(0).normal(100, 200, shape)
    values[:, :12, :12] = 7
    made = sitk.GetImageFromArray(values.clip(np.iinfo(dtype).min, None).astype(dtype))
    made.SetSpacing(spacing)
    made.SetOrigin((-123.456, 77.7, -31.25))
    if direction:
        made.SetDirection(direction)
    return made


def grid_of(made: sitk.Image) -> splines.Grid:
    """The model's grid over an image."""
    x, y, z = (
        int(n * have / want)
        for n, have, want in zip(made.GetSize(), made.GetSpacing(), WANTED, strict=True)
    )
    return splines.Grid((x, y, z), WANTED)


def by_itk(made: sitk.Image, outside: float) -> np.ndarray:
    """The oracle."""
    grid = grid_of(made)
    geometry = (made.GetOrigin(), grid.spacing, made.GetDirection())
    return sitk.GetArrayFromImage(
        sitk.Resample(made, grid.size, sitk.Transform(), sitk.sitkBSpline, *geometry, outside)
    )


@pytest.mark.parametrize(
    ("shape", "spacing", "dtype", "direction"),
    [
        ((24, 40, 44), (0.9375, 0.9375, 4.5), np.int16, None),
        ((20, 40, 44), (0.488281, 0.488281, 5.0), np.int16, turned(0.1, 0.0)),
        ((40, 32, 48), (0.75, 0.8, 1.5), np.uint16, turned(0.3, -0.2)),
        ((12, 17, 18), (0.7, 2.3, 9.5), np.int16, turned(0.02, 0.4)),
    ],
)
def test_resampled_integers_are_itks(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    dtype: type,
    direction: list[float] | None,
) -> None:
    """Samples on voxels, between them and beyond the edge; short lines; signed and not."""
    made = image(shape, spacing, dtype, direction)
    found = splines.resample(made, grid_of(made), outside=3.0)
    assert found is not None
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), by_itk(made, 3.0))
    assert found.GetSpacing() == WANTED
    assert found.GetOrigin() == made.GetOrigin()
    assert found.GetDirection() == made.GetDirection()


@pytest.mark.parametrize("sides", [(40, 20, 18), (17, 19, 5)])
def test_coefficients_are_itks(sides: tuple[int, int, int]) -> None:
    """Both starts of the recursion: long lines are cut off, short ones mirrored whole."""
    made = image(sides, (1.0, 1.0, 1.0))
    expected = sitk.BSplineDecomposition(sitk.Cast(made, sitk.sitkFloat64))
    found = splines.decompose(sitk.GetArrayViewFromImage(made))
    np.testing.assert_array_equal(found, sitk.GetArrayViewFromImage(expected))


def test_what_nothing_reads_may_be_off_by_one_and_no_more() -> None:
    """Constant air is not worth ITK's order of additions."""
    made = image((24, 40, 44), (0.9375, 0.9375, 4.5)) - 900
    found = splines.resample(made, grid_of(made), 0.0, settled_below=-800)
    assert found is not None
    values, expected = sitk.GetArrayFromImage(found).astype(int), by_itk(made, 0.0)
    assert np.abs(values - expected).max() <= 1
    np.testing.assert_array_equal(values.clip(-800), expected.clip(-800))


def test_what_itk_does_as_well_is_left_to_it() -> None:
    """Floats, slabs too thin to mirror, and grids that meet most voxels."""
    whole = image((24, 40, 44), (0.5, 0.5, 4.0))
    assert splines.resample(whole, grid_of(whole), 0.0) is None
    thin = image((3, 40, 44), (0.9, 0.9, 4.5))
    assert splines.resample(thin, grid_of(thin), 0.0) is None
    floats = sitk.Cast(image((24, 40, 44), (0.9, 0.9, 4.5)), sitk.sitkFloat32)
    assert splines.resample(floats, grid_of(floats), 0.0) is None

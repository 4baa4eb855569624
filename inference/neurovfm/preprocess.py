"""Preprocessing of one volume, from an image or an in-memory array to tokens with their geometry.

Two sets of rules: "reference" gives the published numbers (its crashes excepted), "safe" is the
agent's own path; docs/parity.md lists where they part and why.
"""
# SimpleITK's methods carry no annotations:
# mypy: allow-untyped-calls

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation

from inference.errors import VolumeError
from inference.neurovfm import resampling
from inference.neurovfm.resampling import Rules
from inference.neurovfm.tokens import (
    BLOCK,
    CT_FLOOR_HU,
    SeriesTokens,
    Window,
    foreground_mask,
    normalise,
    read_mode,
    tokenize,
)

__all__ = [
    "BLOCK",
    "PreparedVolume",
    "SeriesTokens",
    "Window",
    "foreground_mask",
    "normalise",
    "preprocess_image",
    "preprocess_volume",
    "to_model_space",
    "tokenize",
]


@dataclass(frozen=True, eq=False)
class PreparedVolume:
    """A volume as the model reads it.

    Attributes:
        series: its tokens; three windows of a CT, one of an MR.
        grid_to_patient: 4 x 4, token-centre indices (d, h, w, 1) -> LPS mm.
        size: voxels (D, H, W) in model space.
    """

    series: tuple[SeriesTokens, ...]
    grid_to_patient: npt.NDArray[np.float64]
    size: tuple[int, int, int]

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tokens along depth, rows and columns."""
        return self.series[0].grid

    @property
    def token_count(self) -> int:
        """Tokens the encoder will see, all windows together."""
        return sum(len(part.tokens) for part in self.series)


def preprocess_volume(
    array: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    modality: str,
    mode: Rules = "safe",
    *,
    remove_background: bool = True,
    spacing_mm: tuple[float, float, float] | None = None,
) -> PreparedVolume:
    """Preprocess an array [K, R, C] whose `affine` maps (k, r, c, 1) to LPS mm.

    Args:
        array: HU or MR intensity; an integer type is resampled as integers, as the reference does.
        affine: must be invertible; K is the direction of acquisition.
        modality: CT or MR (MRI).
        mode: "safe" or "reference" rules.
        remove_background: leave out tokens with any background voxel.
        spacing_mm: exact (k, r, c) spacing where known; direction cosines written with few digits
            make the affine's columns too long or short by some 1e-6, enough to lose a voxel.

    Raises:
        VolumeError: the volume cannot be read by the model; the message is the reason to show.
    """
    image = image_from_array(array, affine, spacing_mm)
    return preprocess_image(image, modality, mode, remove_background=remove_background)


def preprocess_image(
    image: sitk.Image, modality: str, mode: Rules = "safe", *, remove_background: bool = True
) -> PreparedVolume:
    """Preprocess a three-dimensional image; see `preprocess_volume`."""
    values, grid_to_patient = to_model_space(image, modality, mode)
    series = tokenize(values, modality, remove_background=remove_background)
    if mode == "safe" and not len(series[0].tokens):
        raise VolumeError("no token of the volume is all tissue: nothing for the model to read")
    return PreparedVolume(tuple(series), grid_to_patient, series[0].size)


def to_model_space(
    image: sitk.Image, modality: str, mode: Rules = "safe"
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Orient, resample and crop: values (depth, row, column) and the tokens' map to the patient.

    The values keep the image's pixel type.
    """
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise VolumeError("not a volume of single values: colour and 4D images are not read")
    values = sitk.GetArrayViewFromImage(image)
    if mode == "safe":
        _refuse_unreadable(values)
    kind = read_mode(modality)
    padding = resampling.padding_value(values, kind, mode)
    unseen = CT_FLOOR_HU if kind == "ct" else -math.inf
    try:
        oriented = resampling.orient(image)
        axis = resampling.slice_axis(oriented, mode, acquired=image)
        resampled = resampling.resample(oriented, axis, mode, padding, unseen)
        cropped = resampling.crop(resampled, axis)
    except RuntimeError as error:
        # ITK's own errors; their texts may hold file paths.
        raise VolumeError("the volume cannot be resampled: geometry or size beyond ITK") from error
    return (
        resampling.to_model_axes(cropped, axis).copy(),
        resampling.grid_to_patient(cropped, axis),
    )


def image_from_array(
    array: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    spacing_mm: tuple[float, float, float] | None = None,
) -> sitk.Image:
    """A SimpleITK image of an array [K, R, C] with an affine (k, r, c, 1) -> LPS mm.

    Raises:
        VolumeError: the array is not three-dimensional or the affine is singular or not finite.
    """
    columns = affine[:3, 2::-1]  # x, y, z of SimpleITK are c, r, k
    lengths = np.linalg.norm(columns, axis=0)
    if array.ndim != 3 or not np.isfinite(affine).all() or not lengths.min() > 0:
        raise VolumeError("the volume has no usable geometry: positions or spacing are missing")
    direction = columns / lengths
    if abs(np.linalg.det(direction)) < 1e-3:
        raise VolumeError("the volume has no usable geometry: two of its axes are parallel")
    image = sitk.GetImageFromArray(array)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(spacing_mm[::-1] if spacing_mm else lengths.tolist())
    image.SetDirection(direction.ravel().tolist())
    return image


def _refuse_unreadable(values: npt.NDArray[Any]) -> None:
    """Safe rules only: what would give numbers without meaning is refused with its reason."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise VolumeError("the volume holds values that are no numbers (NaN or infinite)")
    if values.min() == values.max():
        raise VolumeError("the volume is constant: every voxel has the same value")

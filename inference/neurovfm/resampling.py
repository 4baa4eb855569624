"""Brings an image to the model's space: RPI, 1 mm in plane and 4 mm between slices, whole blocks.

Works on SimpleITK images; axes are counted as SimpleITK does (x = 0, y = 1, z = 2) until
`to_model_axes` turns them into (depth, row, column).
"""
# SimpleITK's methods carry no annotations:
# mypy: allow-untyped-calls

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation

from inference.errors import VolumeError
from inference.neurovfm import splines
from inference.neurovfm.tokens import BLOCK

Rules = Literal["reference", "safe"]

ORIENTATION = "RPI"
IN_PLANE_MM, SLICE_MM = 1.0, 4.0
AIR_HU = -1000.0
ISOTROPIC_WITHIN = 1e-3
"""Relative difference of spacings below which a volume counts as isotropic."""
SIZE_SLACK = 1e-6
"""Voxels by which a size may miss a whole number through rounding of a derived spacing."""

_TURNS = {2: (0, 1, 2), 1: (1, 0, 2), 0: (2, 1, 0)}
"""How (z, y, x) arrays turn so that the slice axis comes first; the last is a swap, no cycle."""


def orient(image: sitk.Image) -> sitk.Image:
    """Permute and flip axes so that they run towards right, posterior and inferior."""
    oriented: sitk.Image = sitk.DICOMOrient(image, ORIENTATION)
    return oriented


def slice_axis(image: sitk.Image, rules: Rules, acquired: sitk.Image | None = None) -> int:
    """The axis that becomes the depth of the tokens.

    Args:
        image: the oriented image.
        rules: "reference" copies the published heuristic, "safe" takes the acquisition's normal.
        acquired: the image before `orient`, whose third axis is the acquisition's normal.

    Raises:
        VolumeError: the reference's heuristic finds none (all sizes equal, spacings not).
    """
    if rules == "safe":
        return _acquisition_axis(image, acquired)
    if len(set(image.GetSpacing())) == 1:
        return 2
    sizes = list(image.GetSize())
    unique = sorted(size for size in sizes if sizes.count(size) == 1)
    if not unique:
        raise VolumeError(
            f"no slice axis: all sides have {sizes[0]} voxels but spacings differ; the reference "
            "skips such volumes, the safe rules read them"
        )
    return sizes.index(unique[0])


def resample(
    image: sitk.Image,
    axis: int,
    rules: Rules,
    padding: float = 0.0,
    settled_below: float = -math.inf,
) -> sitk.Image:
    """Cubic B-spline to 1 mm, 4 mm along `axis`; the pixel type stays.

    Integer images come out truncated towards zero, as in the reference: ITK does so.

    Args:
        image: the oriented image.
        axis: the slice axis.
        rules: "safe" adds slack to the size.
        padding: value of samples beyond the image.
        settled_below: whole values below this one may be off by one, as nothing reads them.

    Raises:
        VolumeError: a side would have no voxel.
    """
    spacing = [SLICE_MM if i == axis else IN_PLANE_MM for i in range(3)]
    slack = SIZE_SLACK if rules == "safe" else 0.0
    before = zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)
    size = [int(n * have / want + slack) for n, have, want in before]
    if min(size) < 1:
        raise VolumeError(f"a side is shorter than one model voxel: {size} voxels after resampling")
    grid = splines.Grid((size[0], size[1], size[2]), (spacing[0], spacing[1], spacing[2]))
    fast = splines.resample(image, grid, padding, settled_below)
    if fast is not None:
        return fast
    return sitk.Resample(
        image,
        size,
        sitk.Transform(),
        sitk.sitkBSpline,
        image.GetOrigin(),
        spacing,
        image.GetDirection(),
        padding,
        image.GetPixelID(),
    )


def crop(image: sitk.Image, axis: int) -> sitk.Image:
    """Centre crop to whole blocks: 4 voxels along `axis`, 16 along the others.

    Raises:
        VolumeError: fewer than one block remains along some axis.
    """
    sides = [BLOCK[0] if i == axis else BLOCK[1] for i in range(3)]
    sizes = image.GetSize()
    if any(n < side for n, side in zip(sizes, sides, strict=True)):
        raise VolumeError(
            f"too small: {list(sizes)} voxels at model spacing, at least {sides} are needed"
        )
    start = [(n % side) // 2 for n, side in zip(sizes, sides, strict=True)]
    size = [n // side * side for n, side in zip(sizes, sides, strict=True)]
    cropped: sitk.Image = sitk.RegionOfInterest(image, size, start)
    return cropped


def to_model_axes(image: sitk.Image, axis: int) -> npt.NDArray[Any]:
    """The image's values as (depth, row, column)."""
    return sitk.GetArrayViewFromImage(image).transpose(_TURNS[axis])


def grid_to_patient(image: sitk.Image, axis: int) -> npt.NDArray[np.float64]:
    """4 x 4: homogeneous token-centre indices (d, h, w, 1) -> patient coordinates (LPS, mm)."""
    steps = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    # Column order of (depth, row, column): array axis i holds SimpleITK axis 2 - i before the turn.
    order = [2 - i for i in _TURNS[axis]]
    voxel_to_patient = np.eye(4)
    voxel_to_patient[:3, :3] = steps[:, order]
    voxel_to_patient[:3, 3] = image.GetOrigin()
    token_to_voxel = np.diag([*BLOCK, 1.0])
    token_to_voxel[:3, 3] = [(side - 1) / 2 for side in BLOCK]
    return voxel_to_patient @ token_to_voxel


def padding_value(values: npt.NDArray[Any], mode: str, rules: Rules) -> float:
    """Value of samples beyond the last voxel: air for CT, the darkest voxel for MR.

    The reference takes 0, which is soft tissue in a CT.
    """
    if rules == "reference":
        return 0.0
    return AIR_HU if mode == "ct" else float(values.min())


def _acquisition_axis(image: sitk.Image, acquired: sitk.Image | None) -> int:
    """Isotropic volumes are cut from top to bottom as the reference does, others as acquired."""
    spacing = np.array(image.GetSpacing())
    if spacing.max() - spacing.min() <= ISOTROPIC_WITHIN * spacing.max():
        return 2
    if acquired is None:
        return int(spacing.argmax())
    normal = np.array(acquired.GetDirection()).reshape(3, 3)[:, 2]
    axes = np.array(image.GetDirection()).reshape(3, 3)
    return int(np.abs(normal @ axes).argmax())

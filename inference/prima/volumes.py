"""Brings an image to the model's space: 256 x 256 in plane, slices as acquired, axes LPS.

"official" gives the published numbers; "safe" is the agent's own path (see docs/parity.md).
"""
# SimpleITK's methods carry no annotations:
# mypy: allow-untyped-calls

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation

from inference.errors import VolumeError
from inference.prima.patches import PLANE_VOXELS, Patches, make_patches, padding_before, token_side

Rules = Literal["official", "safe"]
ORIENTATION = "LPS"


@dataclass(frozen=True, eq=False)
class ModelVolume:
    """A volume in the model's space.

    Attributes:
        array: [Z, Y, X], the image's pixel type.
        axis: the thin axis.
        voxel_to_patient: 4 x 4, (z, y, x, 1) -> LPS mm.
    """

    array: npt.NDArray[Any]
    axis: int
    voxel_to_patient: npt.NDArray[np.float64]

    def patches(self) -> Patches:
        """Its tokens."""
        return make_patches(self.array, self.axis)

    def grid_to_patient(self) -> npt.NDArray[np.float64]:
        """4 x 4: token-centre indices (z, y, x, 1) -> LPS mm."""
        z, y, x = self.array.shape
        side = np.array(token_side(self.axis))
        token_to_voxel = np.diag([*side, 1.0])
        before = np.array(padding_before((z, y, x), self.axis))
        token_to_voxel[:3, 3] = (side - 1) / 2 - before
        return self.voxel_to_patient @ token_to_voxel


def to_model_space(image: sitk.Image, rules: Rules) -> ModelVolume:
    """Resize in plane and orient; the pixel type stays, integers are cut off towards zero.

    Raises:
        VolumeError: the geometry is beyond ITK.
    """
    try:
        resized = resize(image, rules)
        oriented = sitk.DICOMOrient(resized, ORIENTATION)
    except RuntimeError as error:
        # ITK's texts may hold file paths.
        raise VolumeError("the volume cannot be resized: geometry or size beyond ITK") from error
    array = sitk.GetArrayFromImage(oriented)
    return ModelVolume(array, thin_axis(oriented, image), _voxel_to_patient(oriented))


def resize(image: sitk.Image, rules: Rules) -> sitk.Image:
    """256 x 256 in plane over the same field of view, linear, first voxel centres together.

    The last row and column then lie outside the source when it is made larger. "official" fills
    them with the number of the pixel type (3 for uint16), which is what the published pipeline
    passes for a value; "safe" repeats the edge, and leaves images of the right size alone.
    """
    size, spacing = image.GetSize(), image.GetSpacing()
    target = [PLANE_VOXELS, PLANE_VOXELS, size[2]]
    if rules == "safe" and list(size) == target:
        return image
    resized: sitk.Image = sitk.Resample(
        image,
        target,
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        [size[0] * spacing[0] / target[0], size[1] * spacing[1] / target[1], spacing[2]],
        image.GetDirection(),
        image.GetPixelIDValue(),
        image.GetPixelID(),
        rules == "safe",
    )
    return resized


def thin_axis(oriented: sitk.Image, acquired: sitk.Image) -> int:
    """Array axis (z, y, x) across the slices: the first whose length is not 256.

    With 256 slices there is none, and the published pipeline fails; the direction of acquisition
    says it then.
    """
    shape = oriented.GetSize()[::-1]
    for axis, length in enumerate(shape):
        if length != PLANE_VOXELS:
            return axis
    normal = np.array(acquired.GetDirection()).reshape(3, 3)[:, 2]
    axes = np.array(oriented.GetDirection()).reshape(3, 3)
    return 2 - int(np.abs(normal @ axes).argmax())


def _voxel_to_patient(image: sitk.Image) -> npt.NDArray[np.float64]:
    steps = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine = np.eye(4)
    affine[:3, :3] = steps[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return affine

"""The canonical head: tissue maps and distance fields in MNI space, built once per process.

Brain tissue comes from the MNI152 templates inside the installed nilearn wheel; they are read at
run time and never copied. Skull, scalp and neck do not exist there: they are derived as distance
shells around the brain.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources

import numpy as np
import numpy.typing as npt
import torch
from nibabel.nifti1 import Nifti1Image
from scipy import ndimage

Array = npt.NDArray[np.float32]

SCALP_MM = 13.0
"""Outer skin lies this far outside the inner table, about."""
_COARSE = 2
"""Distance fields live on every second template voxel (2 mm)."""


@dataclass(frozen=True)
class Grid:
    """Channels on a regular RAS grid: float32 [C, Z, Y, X] with voxel (0, 0, 0) at `origin_mm`."""

    data: torch.Tensor
    origin_mm: tuple[float, float, float]
    spacing_mm: float

    def sample(self, points_mm: torch.Tensor) -> torch.Tensor:
        """Interpolate linearly at RAS points [K, R, C, 3]; beyond the border its value repeats."""
        _, depth, height, width = self.data.shape
        size = torch.tensor([width, height, depth], dtype=torch.float32)
        origin = torch.tensor(self.origin_mm, dtype=torch.float32)
        unit = (points_mm - origin) * (2.0 / (self.spacing_mm * (size - 1))) - 1.0
        return torch.nn.functional.grid_sample(
            self.data[None], unit[None], mode="bilinear", padding_mode="border", align_corners=True
        )[0]


@dataclass(frozen=True)
class Anatomy:
    """The canonical head.

    Attributes:
        tissue: channels grey matter, white matter (fractions 0..1), 1 mm.
        shells: channels signed distance in mm to the inner table and to the skin (negative
            inside), 2 mm.
        ventricles: signed distance in mm to the lateral ventricles, 2 mm.
    """

    tissue: Grid
    shells: Grid
    ventricles: Grid


@functools.lru_cache(maxsize=1)
def canonical_head() -> Anatomy:
    """Load the templates and derive the distance fields (about a second, then cached)."""
    grey, white, t1, origin = _templates()
    inner = _inner_table_mm(grey + white)
    skin = _skin_mm(inner, origin)
    ventricles = _ventricles_mm(grey + white, t1, origin)
    return Anatomy(
        tissue=Grid(_to_zyx(grey, white), origin, 1.0),
        shells=Grid(_to_zyx(inner, skin), origin, float(_COARSE)),
        ventricles=Grid(_to_zyx(ventricles), origin, float(_COARSE)),
    )


def _templates() -> tuple[Array, Array, Array, tuple[float, float, float]]:
    folder = resources.files("nilearn") / "datasets" / "data"
    volumes: list[Array] = []
    for name in ("gm", "wm", "t1"):
        with resources.as_file(
            folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        ) as f:
            image = Nifti1Image.from_filename(f)
            volumes.append(np.asarray(image.dataobj, dtype=np.float32) / 255.0)
            x, y, z = (float(v) for v in image.affine[:3, 3])
    grey, white, t1 = volumes
    return grey, white, t1, (x, y, z)


def _to_zyx(*channels: Array) -> torch.Tensor:
    return torch.from_numpy(
        np.stack([np.ascontiguousarray(c.transpose(2, 1, 0)) for c in channels])
    )


def _signed_distance_mm(mask: npt.NDArray[np.bool_]) -> Array:
    outside = ndimage.distance_transform_edt(~mask)
    inside = ndimage.distance_transform_edt(mask)
    distance: Array = ((outside - inside) * _COARSE).astype(np.float32)
    return distance


def _inner_table_mm(brain: Array) -> Array:
    """Signed distance to the inner table: the brain, closed over its fissures, plus 2 mm of CSF."""
    mask = brain[::_COARSE, ::_COARSE, ::_COARSE] > 0.3
    closed = _signed_distance_mm(mask) < 12.0
    hull = _signed_distance_mm(closed) + 12.0 - 2.0
    return _smooth(hull, 1.2)


def _skin_mm(inner: Array, origin: tuple[float, float, float]) -> Array:
    """Signed distance to the skin: scalp above, tapering downwards into a stump of neck."""
    head = inner < SCALP_MM
    widest = int((5.0 - origin[2]) / _COARSE)
    outline_mm = _signed_distance_mm(head[:, :, widest])
    for k in range(widest):
        taper_mm = 0.16 * (widest - k) * _COARSE
        head[:, :, k] |= outline_mm < -taper_mm
    return _smooth(_signed_distance_mm(head), 1.5)


def _ventricles_mm(brain: Array, t1: Array, origin: tuple[float, float, float]) -> Array:
    """Signed distance to the lateral ventricles: the largest fluid pocket in the middle."""
    x, y, z = np.ogrid[tuple(slice(0, n) for n in brain.shape)]
    x, y, z = x + origin[0], y + origin[1], z + origin[2]
    middle = (abs(x) < 34) & (y > -50) & (y < 36) & (z > -16) & (z < 34)
    fluid = ndimage.binary_opening((t1 > 0) & (brain < 0.5) & middle)
    parts, count = ndimage.label(fluid)
    sizes = ndimage.sum_labels(fluid, parts, range(1, count + 1))
    lateral = parts == 1 + int(np.argmax(sizes))
    distance = _signed_distance_mm(lateral[::_COARSE, ::_COARSE, ::_COARSE])
    return _smooth(distance, 0.8)


def _smooth(field: Array, sigma: float) -> Array:
    smooth: Array = ndimage.gaussian_filter(field, sigma).astype(np.float32)
    return smooth

"""Bring a volume to right angles and even spacing, as the models want it.

Frames of a tilted gantry are displaced in their plane from slice to slice; each is shifted back
(linearly interpolated) onto a canvas large enough for all. Uneven slices are interpolated onto the
median spacing. The volume itself, and with it every overlay, keeps the geometry of the source.
"""

from __future__ import annotations

import numpy as np

from inference.errors import VolumeError
from inference.volumes.volume import CT_AIR_HU, Array, Matrix, ModelGrid, Volume

SPACING_DIGITS = 5
"""Positions are decimal texts: what lies beyond is rounding, and costs models whole slices."""
MAX_GROWTH = 4.0
"""The canvas may hold this many times the voxels of the source; positions beyond are absurd."""


def model_grid(volume: Volume) -> ModelGrid:
    """Return the volume's voxels on an orthogonal, evenly spaced grid.

    A volume that is neither sheared nor uneven comes back with the very same array.

    Raises:
        VolumeError: the frames lie so far apart that the grid would not fit the memory limit.
    """
    col_dir = _unit(volume.affine[:3, 1])
    row_dir = _unit(volume.affine[:3, 2])
    normal = np.cross(row_dir, col_dir)
    spacing_k, spacing_r, spacing_c = volume.spacing_mm
    along = (volume.positions_mm - volume.positions_mm[0]) @ normal
    if volume.uniform and len(along) > 1:
        spacing_k = float(along[-1] / (len(along) - 1))
    spacing_k = round(spacing_k, SPACING_DIGITS)
    affine = np.eye(4)
    affine[:3, 0] = normal * spacing_k
    affine[:3, 1], affine[:3, 2] = col_dir * spacing_r, row_dir * spacing_c
    affine[:3, 3] = volume.positions_mm[0]
    array = volume.array
    if volume.sheared:
        array, affine = _unshear(volume, affine)
    if not volume.uniform:
        array = _even(array, along, spacing_k)
    return ModelGrid(array, affine, (spacing_k, spacing_r, spacing_c))


def _unshear(volume: Volume, affine: Matrix) -> tuple[Array, Matrix]:
    """Shift every frame in its plane so that pixels of equal index lie above each other."""
    shift = (volume.positions_mm - volume.positions_mm[0]) @ np.stack(
        [_unit(affine[:3, 1]), _unit(affine[:3, 2])], axis=1
    )
    shift = shift / np.array(volume.spacing_mm[1:])
    low = np.floor(shift.min(axis=0)).astype(int)
    high = np.ceil(shift.max(axis=0)).astype(int)
    k, rows, cols = volume.array.shape
    canvas = (k, rows + high[0] - low[0], cols + high[1] - low[1])
    _check_growth(canvas, volume.array.size)
    out = np.full(canvas, _background(volume), dtype=volume.array.dtype)
    for index, frame_shift in enumerate(shift - low):
        _place(volume.array[index], frame_shift, out[index], _background(volume))
    affine = affine.copy()
    affine[:3, 3] += affine[:3, 1:3] @ low
    return out, affine


def _place(frame: Array, shift: Matrix, out: Array, background: float) -> None:
    """Write a frame moved by a fraction of a pixel into its canvas (bilinear, in place)."""
    whole = np.floor(shift).astype(int)
    part_r, part_c = shift - whole
    padded = np.pad(frame.astype(np.float32), 1, constant_values=background)
    moved = (1 - part_r) * padded[1:] + part_r * padded[:-1]
    moved = (1 - part_c) * moved[:, 1:] + part_c * moved[:, :-1]
    if out.dtype.kind in "iu":
        moved = np.rint(moved)
    rows = min(moved.shape[0], out.shape[0] - whole[0])
    cols = min(moved.shape[1], out.shape[1] - whole[1])
    out[whole[0] : whole[0] + rows, whole[1] : whole[1] + cols] = moved[:rows, :cols]


def _even(array: Array, along: Matrix, spacing: float) -> Array:
    """Interpolate slices linearly at even distances along the normal."""
    count = int(np.floor(along[-1] / spacing + 1e-3)) + 1
    _check_growth((count, *array.shape[1:]), array.size)
    out = np.empty((count, *array.shape[1:]), dtype=array.dtype)
    for k in range(count):
        at = min(k * spacing, along[-1])
        upper = int(np.clip(np.searchsorted(along, at), 1, len(along) - 1))
        part = (at - along[upper - 1]) / (along[upper] - along[upper - 1])
        slab = (1 - part) * array[upper - 1].astype(np.float32) + part * array[upper]
        out[k] = np.rint(slab) if array.dtype.kind in "iu" else slab
    return out


def _background(volume: Volume) -> float:
    return CT_AIR_HU if volume.modality == "CT" else float(volume.array.min())


def _check_growth(shape: tuple[int, ...], voxels: int) -> None:
    if float(np.prod([float(n) for n in shape])) > MAX_GROWTH * voxels:
        raise VolumeError("frames too far apart for one volume")


def _unit(vector: Matrix) -> Matrix:
    unit: Matrix = vector / np.linalg.norm(vector)
    return unit

"""Where a stack's frames lie: order along the normal, spacing, gaps, shear, affine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inference.errors import VolumeError
from inference.volumes.headers import FrameHeader
from inference.volumes.volume import Matrix

NOT_ORTHONORMAL = 0.01
UNIFORM_FRACTION = 0.05
"""Frames within this share of the slice spacing from their even place count as evenly spaced."""
ROUNDED_MM = 0.06
"""... or within this: some scanners write positions with one decimal."""
GAP_FACTOR = 1.5
"""A gap of more than this many median spacings means missing slices."""
SHEAR_PIXELS = 0.5
"""Drift in the plane over the whole stack below which frames count as not displaced."""


class GeometryError(VolumeError):
    """The headers do not describe parallel frames in space; the message is the reason."""


@dataclass(frozen=True)
class StackGeometry:
    """Attributes as in `Volume`; `order` sorts the frames along the normal."""

    order: tuple[int, ...]
    affine: Matrix
    positions_mm: Matrix
    spacing_mm: tuple[float, float, float]
    uniform: bool
    sheared: bool
    missing_slices: int
    warnings: tuple[str, ...]


def fit(frames: Sequence[FrameHeader]) -> StackGeometry:
    """Derive the geometry of a stack of at least two parallel frames.

    Raises:
        GeometryError: directions are no unit vectors at right angles, or a spacing is not > 0.
    """
    row_dir, col_dir = _directions(frames[0])
    normal = np.cross(row_dir, col_dir)
    spacing_r, spacing_c = frames[0].pixel_spacing or (0.0, 0.0)
    if spacing_r <= 0 or spacing_c <= 0:
        raise GeometryError("pixel spacing is not positive")
    positions = np.array([frame.position for frame in frames], dtype=np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    steps = np.diff(positions @ normal)
    spacing_k = float(np.median(steps))
    if spacing_k <= 0:
        raise GeometryError("slices do not advance along their normal")
    start, step, residual = _line(positions)
    uniform = residual <= max(UNIFORM_FRACTION * spacing_k, ROUNDED_MM)
    if not uniform:
        start, step = positions[0], (positions[-1] - positions[0]) / (len(frames) - 1)
    missing = np.rint(steps[steps > GAP_FACTOR * spacing_k] / spacing_k) - 1
    affine = np.eye(4)
    affine[:3, :] = np.stack([step, col_dir * spacing_r, row_dir * spacing_c, start], axis=1)
    return StackGeometry(
        order=tuple(int(i) for i in order),
        affine=affine,
        positions_mm=positions,
        spacing_mm=(spacing_k, spacing_r, spacing_c),
        uniform=uniform,
        sheared=_sheared(positions, normal, min(spacing_r, spacing_c)),
        missing_slices=int(missing.sum()),
        warnings=_warnings(steps, spacing_k, missing, uniform),
    )


def _directions(frame: FrameHeader) -> tuple[Matrix, Matrix]:
    cosines = np.asarray(frame.orientation, dtype=np.float64)
    row_dir, col_dir = cosines[:3], cosines[3:]
    lengths = float(np.linalg.norm(row_dir)), float(np.linalg.norm(col_dir))
    skew = abs(float(row_dir @ col_dir))
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), skew) > NOT_ORTHONORMAL:
        raise GeometryError("direction cosines are not unit vectors at right angles")
    row_dir = row_dir / lengths[0]
    col_dir = col_dir - (col_dir @ row_dir) * row_dir
    return row_dir, col_dir / np.linalg.norm(col_dir)


def _line(positions: Matrix) -> tuple[Matrix, Matrix, float]:
    """Least-squares start and step of evenly spaced points, and the largest distance from it."""
    index = np.arange(len(positions), dtype=np.float64)
    centered = index - index.mean()
    step = centered @ positions / (centered @ centered)
    start = positions.mean(axis=0) - step * index.mean()
    residual = np.linalg.norm(positions - start - index[:, None] * step, axis=1)
    return start, step, float(residual.max())


def _sheared(positions: Matrix, normal: Matrix, pixel_mm: float) -> bool:
    offset = positions - positions[0]
    in_plane = offset - (offset @ normal)[:, None] * normal
    return bool(np.linalg.norm(in_plane, axis=1).max() > SHEAR_PIXELS * pixel_mm)


def _warnings(steps: Matrix, spacing_k: float, missing: Matrix, uniform: bool) -> tuple[str, ...]:
    if len(missing):
        gaps = f"{int(missing.sum())} slices missing in {len(missing)} gaps"
        size = f"largest step {steps.max():.2f} mm, median {spacing_k:.2f} mm"
        return (f"{gaps}: {size}; interpolated for the model",)
    if not uniform:
        size = f"{steps.min():.2f} to {steps.max():.2f} mm"
        return (f"uneven slice spacing {size}; interpolated for the model",)
    return ()

"""Resample a finding's saliency from the token grid onto the frames of a source series.

Legend: K slices, R rows, C columns of the source; D, H, W tokens.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from inference.findings import Grounding

Matrix = npt.NDArray[np.float64]
HALF_TOKEN = 0.5
ROUNDING = 1e-6
"""Tokens: a voxel center exactly on the border of the grid belongs to it despite rounding."""


def resample_to_volume(
    grounding: Grounding,
    volume_affine: Matrix,
    shape: tuple[int, int, int],
    positions_mm: Matrix | None = None,
) -> npt.NDArray[np.float32]:
    """Interpolate the saliency trilinearly at the voxel centers of a source volume.

    Args:
        grounding: saliency [D, H, W] with its token-grid affine.
        volume_affine: (k, r, c, 1) -> LPS mm of the source volume; it may be sheared.
        shape: (K, R, C) of the source volume.
        positions_mm: [K, 3] position of every frame's first voxel; give `Volume.positions_mm` so
            that unevenly spaced frames are sampled where they truly lie.

    Returns:
        float32 [K, R, C]; zero farther than half a token outside the grid.
    """
    saliency = np.asarray(grounding.saliency, dtype=np.float32)
    to_grid: Matrix = np.linalg.inv(grounding.grid_to_patient).astype(np.float64)
    if positions_mm is None:
        positions_mm = volume_affine[:3, 3] + np.arange(shape[0])[:, None] * volume_affine[:3, 0]
    in_plane = _in_plane(to_grid, volume_affine, shape)
    starts = positions_mm @ to_grid[:3, :3].T + to_grid[:3, 3]
    out = np.zeros(shape, dtype=np.float32)
    for k, start in enumerate(starts):
        _sample_plane(saliency, in_plane + start, out[k])
    return out


def finding_mask(
    grounding: Grounding,
    volume_affine: Matrix,
    shape: tuple[int, int, int],
    positions_mm: Matrix | None = None,
    foreground: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.bool_]:
    """The voxels of a source volume that belong to a finding: bool [K, R, C].

    Args:
        grounding: saliency [D, H, W] with its token-grid affine.
        volume_affine: as in `resample_to_volume`.
        shape: (K, R, C) of the source volume.
        positions_mm: as in `resample_to_volume`.
        foreground: bool [K, R, C]; the mask keeps inside it (a finding does not lie in air).
    """
    saliency = resample_to_volume(grounding, volume_affine, shape, positions_mm)
    mask = saliency >= _level(saliency, grounding.threshold)
    return mask if foreground is None else mask & foreground


def key_slice(saliency: npt.NDArray[np.float32], threshold: float = 0.0) -> int:
    """Index of the slice of [K, R, C] with the most saliency at or above `threshold`."""
    level = _level(saliency, threshold)
    weights = np.where(saliency >= level, saliency, 0).sum(axis=(1, 2), dtype=np.float64)
    best = np.flatnonzero(weights >= weights.max() * (1 - 1e-6))
    return int(best[len(best) // 2])


def _level(saliency: npt.NDArray[np.float32], threshold: float) -> float:
    """The threshold, lowered where no voxel center hits the peak of the token grid."""
    peak = float(saliency.max(initial=0.0))
    if peak <= 0:
        return 1.0
    level = threshold if peak >= threshold else threshold * peak
    return max(level, float(np.finfo(np.float32).tiny))


def _in_plane(to_grid: Matrix, affine: Matrix, shape: tuple[int, int, int]) -> Matrix:
    """Offset in tokens of every pixel from its frame's first pixel: [R, C, 3]."""
    step_r, step_c = to_grid[:3, :3] @ affine[:3, 1], to_grid[:3, :3] @ affine[:3, 2]
    rows, cols = np.arange(shape[1])[:, None, None], np.arange(shape[2])[None, :, None]
    offsets: Matrix = rows * step_r + cols * step_c
    return offsets


def _sample_plane(
    saliency: npt.NDArray[np.float32], points: Matrix, out: npt.NDArray[np.float32]
) -> None:
    """Sample token coordinates [R, C, 3] into out [R, C]."""
    last = np.array(saliency.shape) - 1
    border = HALF_TOKEN + ROUNDING
    inside = np.all((points >= -border) & (points <= last + border), axis=-1)
    if not inside.any():
        return
    chosen = points[inside].T
    out[inside] = ndimage.map_coordinates(saliency, chosen, order=1, mode="nearest")

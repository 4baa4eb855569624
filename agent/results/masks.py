"""The frames of a source stack that a finding's attention covers, one mask at a time."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from agent.results.planes import Grid
from inference.explain import resample_to_volume
from inference.findings import Grounding

Mask = npt.NDArray[np.uint8]


def masked_frames(grounding: Grounding, grid: Grid) -> list[tuple[int, Mask]]:
    """(frame index, mask [R, C] of 0 and 1) of every frame that holds a masked pixel.

    Only frames near salient tokens are resampled and only covered frames are kept, so memory and
    time follow the finding's size and not the study's.
    """
    level = max(grounding.threshold, float(np.finfo(np.float32).tiny))
    found = list(_frames_at(salient_part(grounding, level), grid, level))
    if found:
        return found
    # No pixel center met the peak of the token grid: take the threshold relative to what was met.
    peak = max((float(s.max()) for _, s in saliency_frames(grounding, grid)), default=0.0)
    return list(_frames_at(grounding, grid, grounding.threshold * peak)) if peak > 0 else []


def saliency_frames(
    grounding: Grounding, grid: Grid
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """(frame index, saliency [R, C]) of every frame that the token grid reaches."""
    for k in _reached(grounding, grid):
        yield int(k), saliency_of(grounding, grid, int(k))


def saliency_of(grounding: Grounding, grid: Grid, k: int) -> npt.NDArray[np.float32]:
    """Saliency [R, C] on frame k; 0 where the token grid does not reach."""
    plane = np.zeros((grid.rows, grid.columns), np.float32)
    rows, columns = _window(grounding, grid, k)
    shape = (1, rows.stop - rows.start, columns.stop - columns.start)
    if shape[1] > 0 and shape[2] > 0:
        corner = np.array([rows.start, columns.start]) @ grid.affine[:3, 1:3].T
        position = grid.positions_mm[k : k + 1] + corner
        plane[rows, columns] = resample_to_volume(grounding, grid.affine, shape, position)[0]
    return plane


def salient_part(grounding: Grounding, level: float) -> Grounding:
    """The token grid cut to its salient tokens and one token around them.

    Interpolation never exceeds its neighbors, so nothing at or above the level lies outside.
    """
    salient = np.argwhere(grounding.saliency >= level)
    if len(salient) == 0:
        return grounding
    low = np.maximum(salient.min(axis=0) - 1, 0)
    high = np.minimum(salient.max(axis=0) + 2, grounding.saliency.shape)
    shift = np.eye(4)
    shift[:3, 3] = low
    part = grounding.saliency[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return dataclasses.replace(
        grounding, saliency=part, grid_to_patient=grounding.grid_to_patient @ shift
    )


def _frames_at(grounding: Grounding, grid: Grid, level: float) -> Iterator[tuple[int, Mask]]:
    for k, saliency in saliency_frames(grounding, grid):
        mask = saliency >= level
        if mask.any():
            yield k, mask.astype(np.uint8)


def _reached(grounding: Grounding, grid: Grid) -> npt.NDArray[np.intp]:
    """Indices of frames whose corners do not all lie beyond the same side of the token grid."""
    to_grid = np.linalg.inv(grounding.grid_to_patient)
    axes = grid.affine[:3, 1:3]
    ends = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * (np.array([grid.rows, grid.columns]) - 1)
    corners = grid.positions_mm[:, None, :] + (ends @ axes.T)[None]
    tokens = corners @ to_grid[:3, :3].T + to_grid[:3, 3]
    last = np.array(grounding.saliency.shape) - 0.5
    apart = (tokens.max(axis=1) < -0.5 - 1e-6) | (tokens.min(axis=1) > last + 1e-6)
    return np.flatnonzero(~apart.any(axis=1))


def _window(grounding: Grounding, grid: Grid, k: int) -> tuple[slice, slice]:
    """Rows and columns of frame k that the token box, seen along the normal, can touch."""
    box = np.array(list(itertools.product(*((-0.5, n - 0.5) for n in grounding.saliency.shape))))
    corners = box @ grounding.grid_to_patient[:3, :3].T + grounding.grid_to_patient[:3, 3]
    along_rc = np.linalg.pinv(grid.affine[:3, 1:3]) @ (corners - grid.positions_mm[k]).T
    first = np.floor(along_rc.min(axis=1)).astype(int) - 1
    last = np.ceil(along_rc.max(axis=1)).astype(int) + 2
    return (
        slice(*np.clip([first[0], last[0]], 0, grid.rows).tolist()),
        slice(*np.clip([first[1], last[1]], 0, grid.columns).tolist()),
    )

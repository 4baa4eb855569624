"""From a head's token weights to the place in a source series where a finding was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.explain.resample import key_slice, resample_to_volume
from inference.findings import Grounding
from inference.volumes.volume import FrameRef, Matrix, Volume

Vector = npt.NDArray[np.float32]
KEY_SLICE_PIXELS = 64
"""Rows and columns that are enough to find the slice with the most saliency."""


@dataclass(frozen=True)
class Source:
    """Geometry of a source volume, without its voxels."""

    series_uid: str
    affine: Matrix
    positions_mm: Matrix
    shape: tuple[int, int, int]
    frames: tuple[FrameRef, ...]

    @staticmethod
    def of(series_uid: str, volume: Volume) -> Source:
        """The source of a volume."""
        k, rows, columns = volume.array.shape
        shape = (int(k), int(rows), int(columns))
        return Source(series_uid, volume.affine, volume.positions_mm, shape, volume.frames)


@dataclass(frozen=True)
class TokenSpan:
    """Where a source volume's tokens stand in the study's token sequence.

    A CT volume stands there once a window: `starts` has one entry each, with the same coords.
    """

    source: Source
    coords: npt.NDArray[np.int64]
    grid: tuple[int, int, int]
    grid_to_patient: Matrix
    starts: tuple[int, ...]


def evidence(attention: Vector, patch_logits: Vector | None, sign: float = 1.0) -> Vector:
    """How much each token [N] speaks for a label: attention times its own positive logit.

    Falls back to the attention where the head has no token logits or none of them is positive.

    Args:
        attention: weights of the label's (or the shared) column.
        patch_logits: each token's own logit of the label, or None.
        sign: of the scale the head multiplies its logit by.
    """
    if patch_logits is None:
        return attention
    weighted: Vector = attention * np.maximum(patch_logits * np.float32(sign), 0)
    return weighted if weighted.max(initial=0.0) > 0 else attention


def ground(weights: Vector, spans: Sequence[TokenSpan], threshold: float) -> Grounding | None:
    """The grounding in the source volume that holds most of the weight; None without weight."""
    maps = [_token_map(weights, span) for span in spans]
    totals = [float(m.sum()) for m in maps]
    best = int(np.argmax(totals)) if totals else -1
    if best < 0 or not np.isfinite(totals[best]) or totals[best] <= 0:
        return None
    span, saliency = spans[best], maps[best] / maps[best].max()
    placed = Grounding(
        series_uid=span.source.series_uid,
        saliency=saliency.astype(np.float32),
        grid_to_patient=span.grid_to_patient,
        threshold=threshold,
        key_sop_uid="",
    )
    frame = span.source.frames[_key_index(placed, span.source)]
    return Grounding(
        series_uid=placed.series_uid,
        saliency=placed.saliency,
        grid_to_patient=placed.grid_to_patient,
        threshold=threshold,
        key_sop_uid=frame.sop_uid,
        key_frame=frame.frame_number,
    )


def _token_map(weights: Vector, span: TokenSpan) -> npt.NDArray[np.float64]:
    """The weights of all windows of a volume on its token grid [D, H, W]."""
    grid = np.zeros(span.grid, dtype=np.float64)
    count = len(span.coords)
    for start in span.starts:
        grid[tuple(span.coords.T)] += weights[start : start + count]
    return grid


def _key_index(grounding: Grounding, source: Source) -> int:
    """The slice with the most saliency, found on coarse pixels of every slice."""
    k, rows, columns = source.shape
    step_r, step_c = max(1, rows // KEY_SLICE_PIXELS), max(1, columns // KEY_SLICE_PIXELS)
    affine = source.affine @ np.diag([1.0, step_r, step_c, 1.0])
    # Sample the middle of each coarse pixel, not its first corner.
    offset = source.affine[:3, 1] * (step_r - 1) / 2 + source.affine[:3, 2] * (step_c - 1) / 2
    affine[:3, 3] += offset
    shape = (k, max(1, rows // step_r), max(1, columns // step_c))
    saliency = resample_to_volume(grounding, affine, shape, source.positions_mm + offset)
    return key_slice(saliency, grounding.threshold)

"""On which side of the patient a finding was seen."""

from __future__ import annotations

import enum

import numpy as np

from inference.findings import Grounding

MIDLINE_MM = 10.0
"""So near to the midline neither side is told."""
SHARE = 0.25
"""A side counts as seen with this share of the attention above the finding's threshold."""


class Side(enum.StrEnum):
    """A side of the patient."""

    LEFT = "left"
    RIGHT = "right"


def sides(grounding: Grounding) -> frozenset[Side]:
    """The sides a grounding lies on; empty at the midline, or when it says nothing.

    Coordinates are DICOM's (LPS): x grows towards the patient's left, and a head that was
    positioned for its scan has its midline near x = 0.
    """
    weights = np.nan_to_num(np.asarray(grounding.saliency, np.float64))
    matrix = np.asarray(grounding.grid_to_patient, np.float64)
    if weights.ndim != 3 or matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        return frozenset()
    at = np.argwhere((weights >= grounding.threshold) & (weights > 0))
    if not len(at):
        return frozenset()
    weight = weights[tuple(at.T)]
    x = at @ matrix[0, :3] + matrix[0, 3]
    whole = weight.sum()
    shares = {
        Side.LEFT: weight[x > MIDLINE_MM].sum() / whole,
        Side.RIGHT: weight[x < -MIDLINE_MM].sum() / whole,
    }
    return frozenset(side for side, share in shares.items() if share >= SHARE)

"""Agreement of a saliency map with a known mask: Dice overlap and the pointing game."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage


def dice(mask: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """Dice overlap of two masks, 0..1; two empty masks agree (1)."""
    total = int(np.count_nonzero(mask)) + int(np.count_nonzero(truth))
    if total == 0:
        return 1.0
    return 2.0 * int(np.count_nonzero(mask & truth)) / total


def pointing_hit(
    saliency: npt.NDArray[np.float32],
    truth: npt.NDArray[np.bool_],
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    tolerance_mm: float = 0.0,
) -> bool:
    """Whether the most salient voxel lies in the true mask or within the tolerance of it."""
    if not truth.any() or not saliency.max() > 0:
        return False
    peak = np.unravel_index(int(np.argmax(saliency)), saliency.shape)
    if truth[peak]:
        return True
    if tolerance_mm <= 0:
        return False
    distance_mm = ndimage.distance_transform_edt(~truth, sampling=spacing_mm)
    return bool(distance_mm[peak] <= tolerance_mm)

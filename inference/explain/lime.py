"""LIME for any model: which parts to leave out, how near that is to the whole, and the linear fit.

Legend: M samples, F features (parts that are there or not), L outputs. The fit is the ridge
regression of the published LIME package: samples weighted by nearness, the intercept free.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.errors import InputError

Masks = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

KERNEL_WIDTH = 0.25
"""As in the published LIME package, for cosine distances."""
RIDGE = 1.0


@dataclass(frozen=True, eq=False)
class Fit:
    """A linear stand-in for a model around one input.

    Attributes:
        coefficients: [F, L], what each feature adds to each output when it is there.
        intercept: [L].
        r2: [L], weighted share of the outputs' variance that the fit explains, 1 at best; 0 where
            an output did not vary. With many features it flatters.
        held_out_r2: [L], the same when each sample is predicted from the others; may be negative.
    """

    coefficients: Values
    intercept: Values
    r2: Values
    held_out_r2: Values


def seed_of(*parts: str) -> int:
    """A seed that depends on nothing but these texts, e.g. study, pack and series."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def draw_masks(seed: int, samples: int, features: int) -> Masks:
    """Features that each sample has, bool [M, F]: each with probability one half.

    The first sample has all of them; so has any that would have none.

    Raises:
        InputError: no samples or no features.
    """
    if samples < 1 or features < 1:
        raise InputError(
            f"LIME over {samples} samples of {features} features: both must be 1 or more"
        )
    # RandomState's numbers are frozen for good; those of newer generators may change.
    drawn = np.random.RandomState(seed).randint(0, 2, samples * features)
    masks: Masks = drawn.reshape(samples, features).astype(bool)
    masks[0] = True
    masks[~masks.any(axis=1)] = True
    return masks


def kernel_weights(masks: Masks, width: float = KERNEL_WIDTH) -> Values:
    """Nearness of each sample to the whole, [M]: 1 for the whole itself.

    The exponential kernel over the cosine distance between the sample and all ones.
    """
    distance = 1 - np.sqrt(masks.mean(axis=1))
    weights: Values = np.sqrt(np.exp(-(distance**2) / width**2))
    return weights


def fit(masks: Masks, outputs: Values, weights: Values, ridge: float = RIDGE) -> Fit:
    """Weighted ridge regression of outputs [M, L] on features [M, F].

    Raises:
        InputError: the counts differ, or an output is no number.
    """
    if not len(masks) == len(outputs) == len(weights) or not np.isfinite(outputs).all():
        raise InputError(
            f"{len(masks)} samples, {len(outputs)} outputs and {len(weights)} weights: they must "
            "be as many, and the outputs numbers"
        )
    share = weights / weights.sum()
    mean_x, mean_y = share @ masks, share @ outputs
    root = np.sqrt(weights)[:, None]
    x, y = (masks - mean_x) * root, (outputs - mean_y) * root
    solver = _ridge(x, ridge)
    coefficients = solver @ y
    left = y - x @ coefficients
    # What the fit misses of a sample that it has not seen follows from the sample's leverage.
    leverage = share + np.einsum("mf,fm->m", x, solver)
    unseen = left / np.maximum(1 - leverage, np.finfo(np.float64).eps)[:, None]
    total = (y**2).sum(axis=0)
    varies = total > np.finfo(np.float32).eps ** 2 * (1 + mean_y**2) * weights.sum()

    def explained(missed: Values) -> Values:
        shares: Values = 1 - (missed**2).sum(axis=0) / np.where(varies, total, 1)
        return np.where(varies, shares, 0.0)

    intercept = mean_y - mean_x @ coefficients
    return Fit(coefficients, intercept, explained(left), explained(unseen))


def blocks(places: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """Group neighbours in a grid until there are no more than `most` groups.

    The grid is cut into blocks, each step doubling the side along which the blocks are most.

    Args:
        places: [n, 3], where each token stands; equal places share a group.
        most: groups at most.

    Returns:
        int64 [n], the group of each token, from 0.
    """
    side = np.ones(3, dtype=np.int64)
    first = places.min(axis=0)
    while True:
        found = (places - first) // side
        kinds, groups = np.unique(found, axis=0, return_inverse=True)
        if len(kinds) <= max(most, 1):
            return groups.reshape(-1).astype(np.int64)
        side[int(np.argmax(found.max(axis=0)))] *= 2


def _ridge(x: Values, ridge: float) -> Values:
    """[F, M] that gives the coefficients of any output; the smaller of two equal systems."""
    samples, features = x.shape
    if features <= samples:
        found = np.linalg.solve(x.T @ x + ridge * np.eye(features), x.T)
    else:
        found = np.linalg.solve(x @ x.T + ridge * np.eye(samples), x).T
    return found.astype(np.float64, copy=False)

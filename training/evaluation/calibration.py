"""Do probabilities mean what they say: temperature, expected error, reliability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from training.evaluation.metrics import Score, Truth

BINS = 10
LIMIT = 30.0


@dataclass(frozen=True)
class ReliabilityBin:
    """Studies whose probability fell between `low` and `high`.

    Attributes:
        count: how many.
        said: their mean probability.
        seen: the share that had the finding.
    """

    low: float
    high: float
    count: int
    said: float
    seen: float


def temperature(truth: Truth, logits: Score) -> float:
    """The number to divide logits by for the least log loss (Guo et al., 2017); 1 for one class."""
    if not truth.any() or truth.all():
        return 1.0
    sign = np.where(truth, 1.0, -1.0)

    def loss(log_temperature: float) -> float:
        scaled = np.clip(sign * logits / np.exp(log_temperature), -LIMIT, LIMIT)
        return float(np.log1p(np.exp(-scaled)).mean())

    found = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded")
    return float(np.exp(found.x))


def reliability(truth: Truth, probability: Score, bins: int = BINS) -> list[ReliabilityBin]:
    """Equal-width bins; empty ones are left out."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    which = np.clip(np.digitize(probability, edges[1:-1]), 0, bins - 1)
    found = []
    for number in range(bins):
        inside: npt.NDArray[np.bool_] = which == number
        if inside.any():
            said, seen = float(probability[inside].mean()), float(truth[inside].mean())
            low, high = float(edges[number]), float(edges[number + 1])
            found.append(ReliabilityBin(low, high, int(inside.sum()), said, seen))
    return found


def expected_error(bins: list[ReliabilityBin]) -> float:
    """Mean distance of what was said from what was seen, weighted by the studies (ECE)."""
    whole = sum(one.count for one in bins)
    return sum(one.count * abs(one.said - one.seen) for one in bins) / max(whole, 1)

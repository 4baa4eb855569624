"""Ranking and decision metrics of one label, with bootstrap intervals.

Shape legend: B studies; truth is bool [B], score float64 [B].
None = cannot be said, because only one class is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Truth = npt.NDArray[np.bool_]
Score = npt.NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measured:
    """A number and its bootstrap interval.

    Attributes:
        value: on all studies.
        low, high: percentile interval over studies resampled within each class.
    """

    value: float
    low: float
    high: float


def auroc(truth: Truth, score: Score) -> float | None:
    """Area under the ROC curve; ties count half."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return None
    ranks = rankdata(score)
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auprc(truth: Truth, score: Score) -> float | None:
    """Average precision: precision at each positive's rank, tied scores taken together."""
    positives = int(truth.sum())
    if not positives or positives == len(truth):
        return None
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    hits = np.cumsum(truth[order])[ends]
    gained = np.diff(hits, prepend=0)
    return float((gained * hits / (ends + 1)).sum() / positives)


def sensitivity(truth: Truth, called: Truth) -> float | None:
    """Share of the positives that were called."""
    return float(called[truth].mean()) if truth.any() else None


def specificity(truth: Truth, called: Truth) -> float | None:
    """Share of the negatives that were not called."""
    return float((~called[~truth]).mean()) if (~truth).any() else None


def with_interval(
    measure: Callable[..., float | None],
    truth: Truth,
    score: npt.NDArray[np.generic],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Measured | None:
    """`measure(truth, score)` with its interval; the same seed gives the same interval."""
    value = measure(truth, score)
    if value is None:
        return None
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(truth), np.flatnonzero(~truth)]
    groups = [one for one in groups if len(one)]
    drawn = []
    for _ in range(resamples):
        rows = np.concatenate([rng.choice(one, len(one)) for one in groups])
        again = measure(truth[rows], score[rows])
        if again is not None:
            drawn.append(again)
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Measured(value, float(low), float(high))


def best_threshold(truth: Truth, score: Score, false_alarm_cost: float = 1.0) -> float:
    """Cut halfway between the two scores where missed share + cost x false alarm share is least.

    0.5 where only one class is known.
    """
    if not truth.any() or truth.all():
        return 0.5
    values = np.unique(score)
    cuts = np.concatenate([[values[0] - 1e-6], (values[1:] + values[:-1]) / 2, [values[-1] + 1e-6]])
    positives, negatives = np.sort(score[truth]), np.sort(score[~truth])
    missed = np.searchsorted(positives, cuts, side="right") / len(positives)
    alarms = 1 - np.searchsorted(negatives, cuts, side="right") / len(negatives)
    cost = missed + false_alarm_cost * alarms
    return float(np.clip(cuts[int(np.argmin(cost))], 0.0, 1.0))

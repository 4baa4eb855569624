"""Numbers of the card: AUROC with bootstrap intervals, pointing game, Dice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.demo_pack.labels import Cut
from training.demo_pack.observe import Observation
from training.evaluation.metrics import auroc, with_interval

Vector = npt.NDArray[np.float64]
_LOWEST, _HIGHEST = 0.3, 0.9
_FALSE_ALARM_COST = 3.0
"""A study has ten chances of a false alarm and, mostly, one finding to miss."""


@dataclass(frozen=True)
class LabelReport:
    """One label on the held-out studies. Rates are 0..1; None where nothing could be counted."""

    label: str
    positives: int
    negatives: int
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    threshold: float
    sensitivity: float | None
    specificity: float | None
    localized: int
    pointing: float | None
    pointing_strict: float | None
    dice: float | None


def auroc_interval(
    truth: npt.NDArray[np.bool_], score: Vector, seed: int = 0
) -> tuple[float | None, float | None]:
    """95 % bootstrap interval over studies, resampled within each class."""
    measured = with_interval(auroc, truth, score, seed=seed)
    return (measured.low, measured.high) if measured else (None, None)


def operating_cut(truth: npt.NDArray[np.bool_], score: Vector) -> float:
    """Probability with the best sensitivity + 3 x specificity, half-way to the next in logits."""
    if truth.all() or not truth.any():
        return Cut().probability
    order = np.sort(np.unique(score))
    edges = np.concatenate([[order[0] / 2], order])
    gains = [
        float((score[truth] > edge).mean() + _FALSE_ALARM_COST * (score[~truth] <= edge).mean())
        for edge in edges
    ]
    best = int(np.argmax(gains))
    below = edges[best]
    above = order[best] if best < len(order) else 1.0
    logit = (_logit(below) + _logit(above)) / 2
    return round(float(np.clip(1 / (1 + np.exp(-logit)), _LOWEST, _HIGHEST)), 3)


def report(observations: Sequence[Observation], label: str, cuts: Mapping[str, Cut]) -> LabelReport:
    """Everything the card says of one label."""
    truth, score = _columns(observations, label)
    cut = cuts[label]
    low, high = auroc_interval(truth, score)
    wanted = [o.places[label] for o in observations if label in o.places]
    return LabelReport(
        label=label,
        positives=int(truth.sum()),
        negatives=int((~truth).sum()),
        auroc=auroc(truth, score),
        auroc_low=low,
        auroc_high=high,
        threshold=cut.probability,
        sensitivity=_mean(score[truth] > cut.probability),
        specificity=_mean(score[~truth] <= cut.probability),
        localized=len(wanted),
        pointing=_mean([p is not None and p.near for p in wanted]),
        pointing_strict=_mean([p is not None and p.hit for p in wanted]),
        dice=_mean([0.0 if p is None else p.dice for p in wanted]),
    )


def _columns(
    observations: Sequence[Observation], label: str
) -> tuple[npt.NDArray[np.bool_], Vector]:
    truth = np.array([o.truth[label] for o in observations], dtype=np.bool_)
    return truth, np.array([o.probability[label] for o in observations], dtype=np.float64)


def _mean(values: Sequence[float] | npt.NDArray[np.bool_]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _logit(probability: float) -> float:
    bounded = min(max(probability, 1e-6), 1 - 1e-6)
    return float(np.log(bounded / (1 - bounded)))

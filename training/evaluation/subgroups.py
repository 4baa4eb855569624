"""Does the model serve everyone: numbers by group, and the gaps between groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.data.table import StudyRow
from training.evaluation import metrics
from training.evaluation.metrics import Score, Truth

AGE_BANDS = ((0, 18), (18, 40), (40, 60), (60, 80), (80, 200))
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MIN_CLASS = 5
"""A group needs this many positives and negatives of a label to be compared."""


@dataclass(frozen=True)
class GroupNumbers:
    """One group of one attribute for one label.

    Attributes:
        auroc, sensitivity, specificity: None where a class has too few studies.
    """

    group: str
    positives: int
    negatives: int
    auroc: float | None
    sensitivity: float | None
    specificity: float | None


@dataclass(frozen=True)
class GroupTable:
    """All groups of one attribute for one label.

    Attributes:
        sensitivity_gap, specificity_gap: largest minus smallest over the groups that can be
            compared; the larger of the two is the distance from equalised odds (Hardt et al.,
            2016). None with fewer than two such groups.
    """

    attribute: str
    label: str
    groups: tuple[GroupNumbers, ...]
    sensitivity_gap: float | None
    specificity_gap: float | None

    @property
    def odds_gap(self) -> float | None:
        """Distance from equalised odds."""
        gaps = [g for g in (self.sensitivity_gap, self.specificity_gap) if g is not None]
        return max(gaps, default=None)


ATTRIBUTES: Mapping[str, Callable[[StudyRow], str]] = {
    "sex": lambda row: row.sex.upper(),
    "age": lambda row: _band(row.age),
    "scanner": lambda row: row.scanner,
    "site": lambda row: row.site,
    "weekday": lambda row: WEEKDAYS[row.date.weekday()] if row.date else "",
}
"""What studies are grouped by; an empty name = unknown, in no group."""


def by_group(
    attribute: str,
    label: str,
    rows: Sequence[StudyRow],
    truth: Truth,
    score: Score,
    called: Truth,
) -> GroupTable | None:
    """Numbers of each group; None where the table names fewer than two groups."""
    names = np.array([ATTRIBUTES[attribute](row) for row in rows], dtype=object)
    groups = tuple(
        _numbers(str(name), truth[names == name], score[names == name], called[names == name])
        for name in sorted({n for n in names if n})
    )
    if len(groups) < 2:
        return None
    return GroupTable(
        attribute,
        label,
        groups,
        _gap([g.sensitivity for g in groups]),
        _gap([g.specificity for g in groups]),
    )


def _numbers(name: str, truth: Truth, score: Score, called: Truth) -> GroupNumbers:
    positives, negatives = int(truth.sum()), int((~truth).sum())
    yes, no = positives >= MIN_CLASS, negatives >= MIN_CLASS
    return GroupNumbers(
        group=name,
        positives=positives,
        negatives=negatives,
        auroc=metrics.auroc(truth, score) if yes and no else None,
        sensitivity=metrics.sensitivity(truth, called) if yes else None,
        specificity=metrics.specificity(truth, called) if no else None,
    )


def _gap(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) - min(known) if len(known) > 1 else None


def _band(age: float | None) -> str:
    if age is None:
        return ""
    for low, high in AGE_BANDS:
        if low <= age < high:
            return f"{low}-{high - 1}" if high < 200 else f"{low} and older"
    return ""

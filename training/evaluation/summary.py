"""All numbers of an evaluation as one plain value: labels, priority, groups, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from inference.findings import Acuity
from inference.manifest import HeadKind, Manifest
from training.data.splits import Split
from training.data.table import StudyRow
from training.evaluation import calibration, metrics, subgroups
from training.evaluation.calibration import ReliabilityBin
from training.evaluation.metrics import Measured, Score, Truth
from training.evaluation.predictions import (
    ORDER,
    PRIORITY_COLUMN,
    REFERRAL_COLUMN,
    Prediction,
)
from training.evaluation.subgroups import GroupTable

COLUMNS = {HeadKind.DIAGNOSES: "", HeadKind.REFERRAL: REFERRAL_COLUMN, HeadKind.PRIORITY: ""}


@dataclass(frozen=True)
class LabelNumbers:
    """One label on the studies that know it; rates are None where a class is missing."""

    label: str
    modality: str
    positives: int
    negatives: int
    threshold: float
    auroc: Measured | None
    auprc: Measured | None
    sensitivity: Measured | None
    specificity: Measured | None
    calibration_error: float
    reliability: tuple[ReliabilityBin, ...]
    training_positives: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """The whole evaluation.

    Attributes:
        pack: name and version.
        studies: analysed.
        refused: reason -> studies that were not analysed; no number counts them.
        labels: every label with at least one known study.
        confusion: acuity by truth -> acuity by model -> studies.
        groups: by attribute and label.
        levels: true priority level -> level of the pack's own head -> studies; empty where the
            pack has no such head or the table no such columns.
    """

    pack: str
    digest: str
    studies: int
    refused: Mapping[str, int]
    labels: tuple[LabelNumbers, ...]
    confusion: Mapping[str, Mapping[str, int]]
    groups: tuple[GroupTable, ...]
    levels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def mean_auroc(self) -> float | None:
        """Over the labels that can be told."""
        known = [one.auroc.value for one in self.labels if one.auroc]
        return float(np.mean(known)) if known else None

    def odds_gaps(self) -> dict[str, float]:
        """Mean distance from equalised odds of each attribute, over the labels that tell."""
        found: dict[str, list[float]] = {}
        for table in self.groups:
            if table.odds_gap is not None:
                found.setdefault(table.attribute, []).append(table.odds_gap)
        return {name: float(np.mean(gaps)) for name, gaps in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "mean_auroc": self.mean_auroc,
            "equalised_odds_gaps": self.odds_gaps(),
        }


def evaluate(
    pack: str,
    digest: str,
    rows: Sequence[StudyRow],
    predictions: Sequence[Prediction],
    thresholds: Mapping[tuple[str, str], float],
    acuities: Mapping[tuple[str, str], Acuity],
    training_positives: Mapping[tuple[str, str], int] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Hold predictions against the table.

    Args:
        pack: as shown, name and version.
        digest: of its manifest.
        rows: with labels, in the order of `predictions`.
        predictions: of the pack.
        thresholds: of each (modality, label).
        acuities: of each (modality, label); the true priority is that of the true labels.
        training_positives: of each (modality, label), for the plot of data against quality.
        seed: of the bootstrap.
    """
    pairs = [(r, p) for r, p in zip(rows, predictions, strict=True) if not p.reason]
    refused: dict[str, int] = {}
    for one in predictions:
        if one.reason:
            refused[one.reason] = refused.get(one.reason, 0) + 1
    numbers, groups = [], []
    for modality, label in sorted(thresholds):
        known = [(r, p) for r, p in pairs if p.modality == modality and label in r.labels]
        if not known:
            continue
        truth = np.array([r.labels[label] == 1 for r, _ in known])
        score = np.array([p.probability[label] for _, p in known])
        called = np.array([p.present[label] for _, p in known])
        trained = (training_positives or {}).get((modality, label))
        threshold = thresholds[modality, label]
        numbers.append(_label(label, modality, truth, score, called, threshold, trained, seed))
        tables = (
            subgroups.by_group(name, label, [r for r, _ in known], truth, score, called)
            for name in subgroups.ATTRIBUTES
        )
        groups += [table for table in tables if table is not None]
    return Evaluation(
        pack,
        digest,
        len(pairs),
        refused,
        tuple(numbers),
        _confusion(pairs, acuities),
        tuple(groups),
    )


def evaluate_pack(
    manifest: Manifest,
    rows: Sequence[StudyRow],
    predictions: Sequence[Prediction],
    whole: Sequence[StudyRow],
    division: Mapping[str, Split],
) -> Evaluation:
    """`evaluate` with thresholds and acuity from the manifest, and the training set's positives.

    Args:
        manifest: of the pack.
        rows: that were analysed, in the order of `predictions`.
        predictions: of the pack.
        whole: the whole table.
        division: the sets of `whole`.
    """
    labels = {
        (head.modality, f"{COLUMNS[head.kind]}{label.id}"): label
        for head in manifest.heads
        for label in head.labels
    }
    levels = next((h.levels for h in manifest.heads if h.kind is HeadKind.PRIORITY), ())
    trained: dict[tuple[str, str], int] = {}
    for row in whole:
        if division.get(row.study) is Split.TRAIN:
            for label, value in row.labels.items():
                key = (row.modality, label)
                trained[key] = trained.get(key, 0) + (value == 1)
    made = evaluate(
        f"{manifest.name} {manifest.version}",
        manifest.digest,
        rows,
        predictions,
        {key: label.threshold for key, label in labels.items()},
        {
            key: label.acuity
            for key, label in labels.items()
            if not key[1].startswith(REFERRAL_COLUMN)
        },
        trained,
    )
    return replace(made, levels=_levels(rows, predictions, levels))


def _levels(
    rows: Sequence[StudyRow], predictions: Sequence[Prediction], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """The pack's own priority against the table's; studies without one true level are left out."""
    counts = {a: dict.fromkeys(names, 0) for a in names}
    for row, one in zip(rows, predictions, strict=True):
        true = [name for name in names if row.labels.get(f"{PRIORITY_COLUMN}{name}") == 1]
        if len(true) == 1 and one.level in counts:
            counts[true[0]][one.level] += 1
    return counts if any(sum(line.values()) for line in counts.values()) else {}


def _label(
    label: str,
    modality: str,
    truth: Truth,
    score: Score,
    called: Truth,
    threshold: float,
    trained: int | None,
    seed: int,
) -> LabelNumbers:
    bins = calibration.reliability(truth, score)
    return LabelNumbers(
        label=label,
        modality=modality,
        positives=int(truth.sum()),
        negatives=int((~truth).sum()),
        threshold=threshold,
        auroc=metrics.with_interval(metrics.auroc, truth, score, seed=seed),
        auprc=metrics.with_interval(metrics.auprc, truth, score, seed=seed),
        sensitivity=metrics.with_interval(metrics.sensitivity, truth, called, seed=seed),
        specificity=metrics.with_interval(metrics.specificity, truth, called, seed=seed),
        calibration_error=calibration.expected_error(bins),
        reliability=tuple(bins),
        training_positives=trained,
    )


def _confusion(
    pairs: Sequence[tuple[StudyRow, Prediction]], acuities: Mapping[tuple[str, str], Acuity]
) -> dict[str, dict[str, int]]:
    """Acuity by the true labels against acuity by the model."""
    counts = {a.value: {b.value: 0 for b in ORDER} for a in ORDER}
    for row, one in pairs:
        true = [
            acuities[one.modality, label]
            for label, value in row.labels.items()
            if value == 1 and (one.modality, label) in acuities
        ]
        truth = min(true, key=ORDER.index, default=Acuity.NORMAL)
        counts[truth.value][one.acuity] += 1
    return counts

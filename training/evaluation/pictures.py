"""The pictures of an evaluation, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from training.data.errors import DataError
from training.evaluation.summary import Evaluation, LabelNumbers

GRAY = "#5b6670"
BLUE = "#1f6feb"


def draw(evaluation: Evaluation) -> dict[str, bytes]:
    """Name -> PNG: ``auroc``, ``reliability``, ``data`` and ``groups``, those that can be drawn.

    Raises:
        DataError: matplotlib is not installed.
    """
    made = {
        "auroc": _auroc(evaluation.labels),
        "reliability": _reliability(evaluation.labels),
        "data": _data(evaluation.labels),
        "groups": _groups(evaluation),
    }
    return {name: picture for name, picture in made.items() if picture is not None}


def _auroc(labels: Sequence[LabelNumbers]) -> bytes | None:
    known = [one for one in labels if one.auroc]
    if not known:
        return None
    figure, axes = _figure(7, 0.6 + 0.25 * len(known))
    for row, one in enumerate(sorted(known, key=lambda x: x.auroc.value if x.auroc else 0)):
        assert one.auroc is not None
        axes.plot([one.auroc.low, one.auroc.high], [row, row], color=GRAY, lw=1.5)
        axes.plot(one.auroc.value, row, "o", color=BLUE, ms=4)
        axes.text(-0.02, row, f"{one.modality} {one.label}", ha="right", va="center", fontsize=7)
    axes.set(xlim=(0, 1.02), yticks=[], xlabel="AUROC with 95 % bootstrap interval")
    axes.axvline(0.5, color=GRAY, lw=0.5, ls=":")
    return _png(figure)


def _reliability(labels: Sequence[LabelNumbers]) -> bytes | None:
    bins = [one for label in labels for one in label.reliability]
    if not bins:
        return None
    figure, axes = _figure(4, 4)
    axes.plot([0, 1], [0, 1], color=GRAY, lw=0.5, ls=":")
    for label in labels:
        said, seen = [b.said for b in label.reliability], [b.seen for b in label.reliability]
        axes.plot(said, seen, lw=0.8, alpha=0.6, marker=".", ms=3)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="Probability said", ylabel="Share seen")
    return _png(figure)


def _data(labels: Sequence[LabelNumbers]) -> bytes | None:
    """AUROC against the logarithm of the positives trained on, with its line (NeuroVFM's plot)."""
    known = [
        (one.training_positives, one.auroc.value)
        for one in labels
        if one.auroc and one.training_positives
    ]
    if len(known) < 3:
        return None
    positives, auroc = np.array(known, dtype=float).T
    figure, axes = _figure(5, 3.5)
    axes.semilogx(positives, auroc, "o", color=BLUE, ms=4)
    if len(set(positives.tolist())) > 1:
        slope, start = np.polyfit(np.log10(positives), auroc, 1)
        ends = np.array([positives.min(), positives.max()])
        axes.plot(ends, start + slope * np.log10(ends), color=GRAY, lw=1)
        axes.set_title(f"{slope:+.3f} AUROC a factor of ten", fontsize=8)
    axes.set(xlabel="Positive training studies", ylabel="AUROC")
    return _png(figure)


def _groups(evaluation: Evaluation) -> bytes | None:
    gaps = evaluation.odds_gaps()
    if not gaps:
        return None
    figure, axes = _figure(5, 0.8 + 0.4 * len(gaps))
    axes.barh(list(gaps), list(gaps.values()), color=BLUE, height=0.5)
    axes.set(xlim=(0, 1), xlabel="Mean distance from equalised odds")
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError("pictures need matplotlib: install the extra 'train'") from error
    figure = Figure(figsize=(width, height), layout="tight")
    return figure, figure.subplots()


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()

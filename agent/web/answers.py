"""What a model with scores and a priority of its own answered, as the study page charts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.priors import Comparison
from inference.findings import DIAGNOSIS

TOP = 10
"""Diagnoses in the chart: those present, and as many of the next as there is room for."""


@dataclass(frozen=True)
class ScoreLine:
    """One bar.

    Attributes:
        score: logit minus threshold; 0 and above is present.
        share: of the chart's half width, -1 to 1.
        change: since the earlier study; None without one.
    """

    label: str
    display: str
    score: float
    share: float
    present: bool
    change: float | None = None


@dataclass(frozen=True)
class LevelLine:
    """One output of the model's own priority head."""

    level: str
    score: float
    share: float
    chosen: bool


@dataclass(frozen=True)
class ModelAnswers:
    """Charts of one analysis.

    Attributes:
        diagnoses: highest score first.
        more: diagnoses that are not shown; all of them are in the table.
        referrals: services, highest score first.
        levels: of the priority head, least urgent first.
        compared_with: key and date of the earlier study; empty without one.
    """

    diagnoses: tuple[ScoreLine, ...]
    more: int
    referrals: tuple[ScoreLine, ...]
    levels: tuple[LevelLine, ...]
    compared_with: tuple[str, str] | None = None
    comparison: str = ""


def answers_of(said: Mapping[str, Any], comparison: Comparison | None) -> ModelAnswers | None:
    """The charts of a findings JSON; None for models without scores."""
    scored = [f for f in said["findings"] if f.get("score") is not None]
    if not scored:
        return None
    scored.sort(key=lambda f: -f["score"])
    diagnoses = [f for f in scored if f["kind"] == DIAGNOSIS]
    referrals = [f for f in scored if f["kind"] != DIAGNOSIS]
    shown = max(TOP, sum(f["score"] >= 0 for f in diagnoses))
    return ModelAnswers(
        diagnoses=_lines(diagnoses[:shown], comparison),
        more=max(0, len(diagnoses) - shown),
        referrals=_lines(referrals, comparison),
        levels=_levels(said.get("model_priority")),
        compared_with=(comparison.key, comparison.date) if comparison else None,
        comparison=comparison.text if comparison else "",
    )


def _lines(
    findings: Sequence[Mapping[str, Any]], comparison: Comparison | None
) -> tuple[ScoreLine, ...]:
    largest = max((abs(f["score"]) for f in findings), default=0.0) or 1.0
    changes = comparison.changes if comparison else {}
    return tuple(
        ScoreLine(
            label=f["label"],
            display=f["display"],
            score=f["score"],
            share=f["score"] / largest,
            present=f["score"] >= 0,
            change=changes[f["label"]].difference if f["label"] in changes else None,
        )
        for f in findings
    )


def _levels(said: Mapping[str, Any] | None) -> tuple[LevelLine, ...]:
    if not said:
        return ()
    scores = said["scores"]
    largest = max(abs(score) for score in scores) or 1.0
    best = scores.index(max(scores))
    return tuple(
        LevelLine(level, score, score / largest, number == best)
        for number, (level, score) in enumerate(zip(said["levels"], scores, strict=True))
    )

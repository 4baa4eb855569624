"""The priority policy: pure cases in a table."""

from __future__ import annotations

import pytest

from agent import facts, priority
from agent.settings import Level, PrioritySettings
from inference.findings import Acuity, Code, Finding, Findings, PackRef, Status

PACK = PackRef("p", "1", "0" * 64, "MIT", "demo")


def finding(label: str, probability: float, acuity: Acuity = Acuity.URGENT) -> Finding:
    """A finding with threshold one half."""
    return Finding(
        label=label,
        display=label.replace("_", " "),
        code=Code("1", "99X", label),
        acuity=acuity,
        probability=probability,
        threshold=0.5,
    )


def findings(*found: Finding, status: Status = Status.SUCCEEDED, reason: str = "") -> Findings:
    """An analysis with these findings."""
    return Findings("1.2", status, PACK, found, reason=reason)


def decide(
    result: Findings, policy: PrioritySettings | None = None, **known: object
) -> priority.Decision:
    """The decision for a study about which `known` is known."""
    summary = facts.StudyFacts(frozenset({"CT"}), **known)  # type: ignore[arg-type]
    return priority.decide(result, summary, policy or PrioritySettings())


@pytest.mark.parametrize(
    ("result", "level"),
    [
        (findings(), Level.LOW),
        (findings(finding("bleed", 0.4)), Level.LOW),
        (findings(finding("bleed", 0.9)), Level.STAT),
        (findings(finding("atrophy", 0.9, Acuity.ROUTINE)), Level.MEDIUM),
        (findings(finding("cyst", 0.9, Acuity.NORMAL)), Level.LOW),
        (
            findings(finding("atrophy", 0.99, Acuity.ROUTINE), finding("bleed", 0.6)),
            Level.STAT,
        ),
        (findings(status=Status.FAILED), Level.MEDIUM),
        (findings(status=Status.NOT_ATTEMPTED), Level.MEDIUM),
        (findings(status=Status.PARTIAL), Level.MEDIUM),
        (findings(finding("bleed", 0.9), status=Status.PARTIAL), Level.STAT),
    ],
)
def test_the_most_urgent_finding_decides(result: Findings, level: Level) -> None:
    """Acuity classes give levels; a study that was not read is not called normal."""
    assert decide(result).level is level


@pytest.mark.parametrize("ordered", ["STAT", "stat", "HIGH"])
def test_ai_never_lowers_what_was_ordered(ordered: str) -> None:
    """Nothing found in a STAT order leaves it STAT."""
    decision = decide(findings(), ordered_priority=ordered)

    assert decision.level is decision.ordered
    assert "ordered" in decision.reason


def test_ai_raises_a_routine_order() -> None:
    """A bleed in a routine order is read first; the order is still on record."""
    decision = decide(findings(finding("bleed", 0.9)), ordered_priority="ROUTINE")

    assert decision.level is Level.STAT
    assert decision.ordered is Level.LOW
    assert decision.reason == "bleed 90% (urgent)"
    assert decision.score == pytest.approx(0.9)


def test_a_doubtful_urgent_finding_may_be_high_instead_of_stat() -> None:
    """The margin is the site's."""
    policy = PrioritySettings(certain_margin=0.2)

    assert decide(findings(finding("bleed", 0.6)), policy).level is Level.HIGH
    assert decide(findings(finding("bleed", 0.8)), policy).level is Level.STAT


def test_site_rules_raise_by_location_and_by_finding() -> None:
    """Overrides apply where their conditions hold, and only raise."""
    policy = PrioritySettings.model_validate(
        {
            "overrides": [
                {"name": "ED", "when": {"location": "ED"}, "at_least": "MEDIUM"},
                {"name": "old clots", "finding": "subdural.*", "at_least": "HIGH"},
            ]
        }
    )
    clot = finding("subdural_hygroma", 0.8, Acuity.NORMAL)

    assert decide(findings(), policy).level is Level.LOW
    assert decide(findings(), policy, location="ED 4").level is Level.MEDIUM
    assert decide(findings(clot), policy).level is Level.HIGH
    assert decide(findings(finding("bleed", 0.9)), policy, location="ED 4").level is Level.STAT


def test_the_reason_of_an_unread_study_does_not_reassure() -> None:
    """It says that nothing follows from the missing flag."""
    decision = decide(findings(status=Status.FAILED, reason="out of memory"))

    assert "out of memory" in decision.reason
    assert "says nothing about urgency" in decision.reason

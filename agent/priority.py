"""Findings and site policy → a reading priority with its reason. Pure; it only ever raises."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent import facts as study_facts
from agent.settings import Level, PrioritySettings
from inference.findings import Acuity, Finding, Findings, Status


@dataclass(frozen=True)
class Decision:
    """The level a study is read at, and why.

    Attributes:
        level: the outcome, never below what was ordered.
        score: probability of the finding that decided, 0..1; 0 when none did.
        reason: one sentence a radiologist can read.
        ordered: the level the order asked for; None when the order says nothing.
    """

    level: Level
    score: float
    reason: str
    ordered: Level | None


@dataclass(frozen=True)
class _Vote:
    level: Level
    score: float
    reason: str


def decide(
    findings: Findings, facts: study_facts.StudyFacts, settings: PrioritySettings
) -> Decision:
    """Take the most urgent of: each finding above threshold, site overrides, the order."""
    votes = [_floor(findings, settings)]
    votes += [_vote(f, settings) for f in findings.positives]
    votes += _overrides(findings, facts, settings)
    ordered = settings.ordered.get(facts.ordered_priority.upper())
    if ordered is not None:
        votes.append(_Vote(ordered, 0.0, f"ordered as {facts.ordered_priority.upper()}"))
    best = min(votes, key=lambda v: (v.level.rank, -v.score))
    return Decision(
        level=best.level, score=round(best.score, 4), reason=best.reason, ordered=ordered
    )


def _floor(findings: Findings, settings: PrioritySettings) -> _Vote:
    """The vote of the study itself: nothing found, or not (fully) looked at."""
    if findings.status in (Status.FAILED, Status.NOT_ATTEMPTED):
        return _Vote(
            settings.unread_failure,
            0.0,
            f"not analysed ({findings.reason or findings.status}): says nothing about urgency",
        )
    if findings.status is Status.PARTIAL:
        return _Vote(
            min(settings.normal, settings.unread_failure, key=lambda level: level.rank),
            0.0,
            f"analysed in part ({findings.reason}), nothing above threshold in what was read",
        )
    return _Vote(settings.normal, 0.0, "no finding above its threshold")


def _vote(finding: Finding, settings: PrioritySettings) -> _Vote:
    level = settings.labels.get(finding.label) or _level_of(finding, settings)
    percent = f"{finding.probability:.0%}"
    return _Vote(level, finding.probability, f"{finding.display} {percent} ({finding.acuity})")


def _level_of(finding: Finding, settings: PrioritySettings) -> Level:
    match finding.acuity:
        case Acuity.URGENT:
            doubtful = finding.probability - finding.threshold < settings.certain_margin
            return Level.HIGH if doubtful and settings.urgent is Level.STAT else settings.urgent
        case Acuity.ROUTINE:
            return settings.routine
        case Acuity.NORMAL:
            return settings.normal


def _overrides(
    findings: Findings, facts: study_facts.StudyFacts, settings: PrioritySettings
) -> list[_Vote]:
    votes = []
    for rule in settings.overrides:
        if not study_facts.matches(rule.when, facts):
            continue
        if rule.finding is None:
            votes.append(_Vote(rule.at_least, 0.0, f"site rule: {rule.name}"))
            continue
        wanted = re.compile(rule.finding, re.IGNORECASE)
        hits = [f for f in findings.positives if wanted.fullmatch(f.label)]
        if hits:
            best = hits[0]
            reason = f"site rule: {rule.name} ({best.display} {best.probability:.0%})"
            votes.append(_Vote(rule.at_least, best.probability, reason))
    return votes

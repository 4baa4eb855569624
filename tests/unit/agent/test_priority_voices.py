"""Several voices on one study: the most urgent wins, and the reader is told who differed."""

from __future__ import annotations

import pytest

from agent import facts, priority
from agent.priority import Opinion, Vote
from agent.settings import Level, PrioritySettings
from inference.findings import (
    Acuity,
    Code,
    Finding,
    Findings,
    ModelPriority,
    PackRef,
    Status,
)
from inference.report.draft import Triage

PRIMA = PackRef("prima", "1", "0" * 64, "MIT", "research")
LEVELS = ("none", "low", "medium", "high")


def said_by_prima(chosen: str, levels: tuple[str, ...] = LEVELS) -> Findings:
    """52 diagnoses are one here; the priority head chooses a level."""
    code = Code("1", "99X", "t")
    tumor = Finding("tumor", "Tumor", code, Acuity.URGENT, 0.8, 0.5, score=1.0)
    scores = tuple(2.0 if level == chosen else 0.0 for level in levels)
    return Findings(
        "1.2", Status.SUCCEEDED, PRIMA, (tumor,), model_priority=ModelPriority(levels, scores)
    )


def decide(said: Findings, ordered: str = "", **policy: object) -> priority.Decision:
    """The decision on one pack's answer."""
    known = facts.StudyFacts(frozenset({"MR"}), ordered_priority=ordered)
    return priority.decide(said, known, PrioritySettings(**policy))  # type: ignore[arg-type]


def opinion(pack: str, level: Level, status: Status = Status.SUCCEEDED) -> Opinion:
    """What the findings of a pack came to."""
    voices = (Vote(priority.FINDINGS, level, 0.5, "why"),) if status is Status.SUCCEEDED else ()
    return Opinion(pack, status, level, 0.5, f"{pack} says {level}", voices)


@pytest.mark.parametrize(
    ("chosen", "level"),
    [("none", Level.LOW), ("low", Level.MEDIUM), ("medium", Level.HIGH), ("high", Level.STAT)],
)
def test_the_models_own_head_decides_for_its_pack(chosen: str, level: Level) -> None:
    """Not the acuity of its diagnoses: the head was trained on what radiologists want first."""
    decision = decide(said_by_prima(chosen))

    assert decision.level is level
    assert [vote.voice for vote in decision.votes] == [priority.PRIORITY_HEAD]
    assert f"own priority head of prima: {chosen} 71%" in decision.reason
    assert "Tumor" in decision.reason


def test_three_level_heads_are_read_by_name() -> None:
    """The arity of the head is no matter: levels have names."""
    decision = decide(said_by_prima("high", ("none", "low", "high")))

    assert decision.level is Level.STAT


def test_level_that_nobody_mapped_is_no_negative() -> None:
    """It counts as not analysed, and says what is missing."""
    decision = decide(said_by_prima("red", ("green", "red")))

    assert decision.level is Level.MEDIUM
    assert "priority.model_levels" in decision.reason


def test_label_with_a_level_of_its_own_counts_beside_the_head() -> None:
    """What the site wrote down for a label is never overruled by the model's low."""
    decision = decide(said_by_prima("none"), labels={"tumor": "HIGH"})

    assert decision.level is Level.HIGH


def test_ai_never_lowers_what_was_ordered_in_any_combination() -> None:
    """Every voice says low; the order said STAT."""
    combined = priority.combine(
        [opinion("a", Level.LOW), opinion("b", Level.MEDIUM)],
        Level.STAT,
        Vote(priority.TRIAGE, Level.LOW, 0.0, "fine"),
    )

    assert combined.level is Level.STAT
    assert combined.reason == "ordered as STAT"


def test_most_urgent_pack_wins_and_the_difference_is_said() -> None:
    """The reason is the winner's; the disagreement names every voice."""
    combined = priority.combine([opinion("head", Level.LOW), opinion("prima", Level.STAT)], None)

    assert (combined.level, combined.reason) == (Level.STAT, "prima says STAT")
    assert combined.disagreement == "findings of head: LOW, findings of prima: STAT"


def test_agreement_is_not_called_a_difference() -> None:
    """Two packs of one opinion need no remark."""
    combined = priority.combine([opinion("a", Level.LOW), opinion("b", Level.LOW)], None)

    assert combined.disagreement == ""


def test_triage_raises_with_its_reason() -> None:
    """The level of the acuity class, the reason of the model that gave it."""
    vote = priority.triage_vote(Triage(Acuity.URGENT, "Acute bleed.", "r1"), PrioritySettings())
    combined = priority.combine([opinion("a", Level.LOW)], None, vote)

    assert combined.level is Level.STAT
    assert combined.reason == "triage by r1: Acute bleed."
    assert combined.disagreement == "findings: LOW, triage: STAT"


def test_study_that_does_not_suit_one_pack_is_judged_by_the_other() -> None:
    """Not attempted beside a good answer raises nothing; alone, or failed, it asks for a look."""
    missing = opinion("prima", Level.MEDIUM, Status.NOT_ATTEMPTED)
    failed = opinion("prima", Level.MEDIUM, Status.FAILED)
    read = opinion("head", Level.LOW)

    assert priority.combine([read, missing], None).level is Level.LOW
    assert priority.combine([missing], None).level is Level.MEDIUM
    assert priority.combine([read, failed], None).level is Level.MEDIUM


def test_votes_survive_the_record() -> None:
    """As JSON in the analysis row; an empty text of an old row holds none."""
    votes = (Vote("findings", Level.HIGH, 0.25, "because"),)

    assert priority.votes_from_json(priority.votes_to_json(votes)) == votes
    assert priority.votes_from_json("") == ()

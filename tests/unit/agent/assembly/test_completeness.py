"""When a study counts as complete: a pure table."""

from __future__ import annotations

import datetime as dt

import pytest

from agent.assembly import completeness
from agent.settings import AssemblySettings

NOW = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
SETTINGS = AssemblySettings(
    quiet_s=30, quiet_s_by_modality={"MR": 120.0}, ceiling_s=600, count_min_quiet_s=2
)


@pytest.mark.parametrize(
    ("quiet_s", "waited_s", "modality", "expected", "complete"),
    [
        (29, 100, "CT", None, False),
        (30, 100, "CT", None, True),
        (30, 100, "MR", None, False),
        (120, 200, "MR", None, True),
        (3, 100, "CT", 10, True),
        (1, 100, "CT", 10, False),
        (3, 100, "CT", 11, False),
        (31, 100, "CT", 11, True),
        (1, 599, "MR", None, False),
        (1, 600, "MR", None, True),
    ],
)
def test_quiet_count_or_ceiling_completes(
    quiet_s: float, waited_s: float, modality: str, expected: int | None, complete: bool
) -> None:
    """Ten instances are here; whichever evidence comes first completes the study."""
    evidence = completeness.Evidence(
        receiving_since=NOW - dt.timedelta(seconds=waited_s),
        last_instance_at=NOW - dt.timedelta(seconds=quiet_s),
        modalities=frozenset({modality}),
        instance_count=10,
        expected_count=expected,
    )

    assert bool(completeness.decide(evidence, NOW, SETTINGS)) is complete


def test_a_mixed_study_waits_for_its_slowest_modality() -> None:
    """CT with MR waits as long as MR does."""
    assert completeness.quiet_period_s({"CT", "MR"}, SETTINGS) == 120
    assert completeness.quiet_period_s(set(), SETTINGS) == 30


@pytest.mark.parametrize(("listening_s", "complete"), [(10, False), (29, False), (30, True)])
def test_time_an_agent_was_down_is_not_quiet(listening_s: float, complete: bool) -> None:
    """After a crash in the middle of a transfer the sender gets its quiet period to come back."""
    evidence = completeness.Evidence(
        receiving_since=NOW - dt.timedelta(seconds=500),
        last_instance_at=NOW - dt.timedelta(seconds=500),
        modalities=frozenset({"CT"}),
        instance_count=10,
        listening_since=NOW - dt.timedelta(seconds=listening_s),
    )

    assert bool(completeness.decide(evidence, NOW, SETTINGS)) is complete

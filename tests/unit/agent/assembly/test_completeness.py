"""When a study counts as complete: a pure table."""

from __future__ import annotations

import datetime as dt

import pytest

from agent.assembly import completeness, evidence
from agent.settings import AssemblySettings, ExpectedProtocol, ExpectedSeries

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
    known = completeness.Evidence(
        receiving_since=NOW - dt.timedelta(seconds=waited_s),
        last_instance_at=NOW - dt.timedelta(seconds=quiet_s),
        modalities=frozenset({modality}),
        instance_count=10,
        expected_count=expected,
    )

    assert bool(completeness.decide(known, NOW, SETTINGS)) is complete


def test_a_mixed_study_waits_for_its_slowest_modality() -> None:
    """CT with MR waits as long as MR does."""
    assert completeness.quiet_period_s({"CT", "MR"}, SETTINGS) == 120
    assert completeness.quiet_period_s(set(), SETTINGS) == 30


@pytest.mark.parametrize(("listening_s", "complete"), [(10, False), (29, False), (30, True)])
def test_time_an_agent_was_down_is_not_quiet(listening_s: float, complete: bool) -> None:
    """After a crash in the middle of a transfer the sender gets its quiet period to come back."""
    known = completeness.Evidence(
        receiving_since=NOW - dt.timedelta(seconds=500),
        last_instance_at=NOW - dt.timedelta(seconds=500),
        modalities=frozenset({"CT"}),
        instance_count=10,
        listening_since=NOW - dt.timedelta(seconds=listening_s),
    )

    assert bool(completeness.decide(known, NOW, SETTINGS)) is complete


STEADY = {
    "receiving_since": NOW - dt.timedelta(seconds=100),
    "last_instance_at": NOW - dt.timedelta(seconds=10),
    "modalities": frozenset({"CT"}),
    "instance_count": 10,
}
ALL, SHORT = completeness.Named(10), completeness.Named(10, missing=2)
LAYERED = AssemblySettings(
    quiet_s=30,
    ceiling_s=600,
    count_min_quiet_s=2,
    announced_quiet_s=300,
    released_quiet_s_by_modality={"CT": 8.0, "MR": 20.0},
)
RELEASED = NOW - dt.timedelta(seconds=9)


@pytest.mark.parametrize(
    ("values", "layer"),
    [
        ({}, None),
        ({"made": ALL}, "performed steps"),
        ({"made": ALL, "available": ALL, "expected_count": 10}, "performed steps"),
        ({"made": ALL, "last_instance_at": NOW}, "performed steps"),
        ({"made": ALL, "steps_open": 1}, None),
        ({"made": SHORT, "expected_count": 10}, None),
        ({"made": SHORT, "last_instance_at": NOW - dt.timedelta(seconds=299)}, None),
        ({"made": SHORT, "last_instance_at": NOW - dt.timedelta(seconds=300)}, "quiet time"),
        ({"available": ALL, "expected_count": 10}, "availability notices"),
        ({"available": ALL, "last_instance_at": NOW}, None),
        ({"available": SHORT}, None),
        ({"made": ALL, "available": SHORT}, "performed steps"),
        ({"expected_count": 10, "released_at": RELEASED}, "archive's count"),
        ({"expected": completeness.Expected("p", 5)}, "expected series"),
        ({"expected": completeness.Expected("p", 15)}, None),
        ({"expected": completeness.Expected("p", 5, ("1 of angio",))}, None),
        ({"released_at": RELEASED}, "associations released"),
        ({"released_at": NOW - dt.timedelta(seconds=11)}, None),
        ({"released_at": RELEASED, "modalities": frozenset({"CT", "MR"})}, None),
        ({"released_at": RELEASED, "modalities": frozenset({"CT", "SR"})}, None),
        ({"released_at": RELEASED, "available": SHORT}, None),
        ({"steps_open": 1, "receiving_since": NOW - dt.timedelta(seconds=600)}, "ceiling"),
        ({"steps_open": 1, "last_instance_at": NOW - dt.timedelta(seconds=500)}, None),
    ],
)
def test_the_strongest_evidence_decides(values: dict[str, object], layer: str | None) -> None:
    """Ten instances, quiet for ten seconds; a weaker layer never overrules a stronger one."""
    verdict = completeness.decide(completeness.Evidence(**{**STEADY, **values}), NOW, LAYERED)

    assert (verdict.layer.value if verdict else None) == layer


@pytest.mark.parametrize(
    ("received", "missing"),
    [
        ([("Head thin 1.0", 120), ("CT angio", 250)], ()),
        ([("HEAD THIN 1.0", 99), ("CT angio", 250)], ("1 of head.*thin",)),
        ([("Scout", 2)], ("1 of head.*thin", "1 of angio")),
    ],
)
def test_expected_series_are_counted_by_protocol(
    received: list[tuple[str, int]], missing: tuple[str, ...]
) -> None:
    """A series counts from its number of instances on; what is missing is named."""
    protocol = ExpectedProtocol(
        name="stroke CT",
        protocol="stroke",
        series=(
            ExpectedSeries(description="head.*thin", min_instances=100),
            ExpectedSeries(description="angio", min_instances=200),
        ),
    )
    assert evidence.missing_series(protocol, received) == missing

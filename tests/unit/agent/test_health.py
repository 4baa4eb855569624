"""Ready, degraded or down, each with a reason that says how to mend it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from factories import rows

from agent import health
from agent.health import Facts, Severity
from db import engine
from db.states import DeliveryState

GB = 1_000_000_000
GOOD = Facts(database_error="", free_bytes=50 * GB, low_water_bytes=2 * GB, worker_alive=True)


@pytest.mark.parametrize(
    ("change", "check", "severity"),
    [
        ({}, None, Severity.OK),
        ({"worker_alive": None}, None, Severity.OK),
        ({"database_error": "OperationalError"}, "database", Severity.DOWN),
        ({"free_bytes": None}, "spool", Severity.DOWN),
        ({"free_bytes": 1 * GB}, "spool", Severity.DOWN),
        ({"free_bytes": 3 * GB}, "spool", Severity.DEGRADED),
        ({"worker_alive": False}, "worker", Severity.DEGRADED),
        (
            {"dead_letters": 2, "dead_destinations": ("pacs",)},
            "deliveries",
            Severity.DEGRADED,
        ),
    ],
)
def test_each_fact_has_its_severity_and_a_reason(
    change: dict[str, object], check: str | None, severity: Severity
):
    """Exactly the check that is concerned complains, with words."""
    answer = health.judge(dataclasses.replace(GOOD, **change))  # type: ignore[arg-type]

    complaints = [c for c in answer.checks if c.severity is not Severity.OK]
    assert severity is answer.severity
    assert ([check] if check else []) == [c.name for c in complaints]
    assert all(c.reason for c in complaints)


def test_degraded_is_ready_and_down_is_not():
    """Studies are still received and read while a human is needed for something."""
    degraded = health.judge(dataclasses.replace(GOOD, dead_letters=1))
    down = health.judge(dataclasses.replace(GOOD, dead_letters=1, database_error="x"))

    assert (degraded.ready, down.ready) == (True, False)
    assert Severity.DOWN is down.severity


def test_facts_are_gathered_from_database_and_disk(tmp_path: Path):
    """Dead letters with their destination, free space, and the worker as it says."""
    sessions = rows.sessions(tmp_path)
    with sessions.begin() as session:
        result = rows.result(session, rows.analysis(session, rows.study(session)))
        rows.delivery(session, result, state=DeliveryState.DEAD, destination="archive")

    facts = health.gather(sessions, tmp_path, low_water_mb=1, worker_alive=lambda: False)

    assert (
        facts.database_error,
        facts.dead_letters,
        facts.dead_destinations,
        facts.worker_alive,
    ) == ("", 1, ("archive",), False)
    assert (facts.free_bytes or 0) > 0


def test_an_absent_database_and_spool_are_facts_not_errors(tmp_path: Path):
    """The health answer must come when everything else is broken."""
    bind = engine.create_engine(f"sqlite:///{tmp_path / 'nobody' / 'there.db'}")

    facts = health.gather(
        engine.session_factory(bind), tmp_path / "no", low_water_mb=1, worker_alive=lambda: None
    )

    assert facts.database_error == "OperationalError"
    assert facts.free_bytes is None
    assert not health.judge(facts).ready

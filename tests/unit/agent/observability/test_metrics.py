"""Metrics count what happened and read how things stand; the documentation lists them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from factories import rows
from prometheus_client import generate_latest
from sqlalchemy.orm import Session, sessionmaker

from agent.observability.metrics import Metrics
from db import engine
from db.states import DeliveryState, StudyState


@pytest.fixture
def sessions(tmp_path: Path) -> sessionmaker[Session]:
    """An empty database."""
    return rows.sessions(tmp_path)


def test_what_happened_is_counted():
    """Instances, bytes, rooms, results, restarts and associations."""
    metrics = Metrics()
    metrics.instance_received("stored", 1000)
    metrics.instance_received("stored", 500)
    metrics.instance_received("refused")
    metrics.room_done("analysis", 2.0)
    metrics.result_committed(12.0)
    metrics.inference_restarted()
    metrics.watch_associations(lambda: 1)

    value = metrics.registry.get_sample_value
    stored = value("worklist_agent_instances_received_total", {"outcome": "stored"})
    assert (stored, value("worklist_agent_received_bytes_total")) == (2, 1500)
    room = {"room": "analysis", "outcome": "ok"}
    assert value("worklist_agent_room_seconds_sum", room) == 2.0
    assert value("worklist_agent_result_seconds_sum") == 12.0
    assert value("worklist_agent_inference_restarts_total") == 1
    assert value("worklist_agent_associations_open") == 1


def test_how_things_stand_is_read_from_the_record(sessions: sessionmaker[Session], tmp_path: Path):
    """States, queue, deliveries and dead letters come from the database at scrape time."""
    metrics = Metrics()
    metrics.watch_record(sessions, tmp_path)
    with sessions.begin() as session:
        rows.study(session, state=StudyState.QUEUED)
        study = rows.study(session)
        result = rows.result(session, rows.analysis(session, study))
        rows.delivery(session, result, state=DeliveryState.DEAD)
        rows.delivery(session, result, destination="archive")

    value = metrics.registry.get_sample_value
    assert value("worklist_agent_studies", {"state": "queued"}) == 1
    assert value("worklist_agent_studies", {"state": "failed"}) == 0
    assert value("worklist_agent_queue_depth") == 1
    assert value("worklist_agent_dead_letters") == 1
    archive = {"destination": "archive", "state": "delivered"}
    assert value("worklist_agent_deliveries", archive) == 1
    assert (value("worklist_agent_spool_free_bytes") or 0) > 0


def test_an_unreadable_database_leaves_the_other_metrics(tmp_path: Path):
    """A scrape never fails: what cannot be read is missing, and the log says so."""
    metrics = Metrics()
    bind = engine.create_engine(f"sqlite:///{tmp_path / 'nobody' / 'there.db'}")
    metrics.watch_record(engine.session_factory(bind), tmp_path)

    text = generate_latest(metrics.registry).decode()

    assert "worklist_agent_studies{" not in text
    assert "worklist_agent_spool_free_bytes" in text


def test_two_agents_in_one_process_do_not_share_counters():
    """The registry is passed around; nothing is global."""
    one, other = Metrics(), Metrics()
    one.inference_restarted()

    assert other.registry.get_sample_value("worklist_agent_inference_restarts_total") == 0


def test_the_documentation_lists_every_metric_and_no_other(
    repository: Path, sessions: sessionmaker[Session], tmp_path: Path
):
    """docs/metrics.md names each metric with its type and its labels."""
    metrics = Metrics()
    metrics.watch_record(sessions, tmp_path)
    families = list(metrics.registry.collect())
    described = [family for c in metrics.registry._collector_to_names for family in c.describe()]
    names = {_exposed(f.name, f.type): f.type for f in [*families, *described]}

    table = re.findall(
        r"^\| `(\w+)` \| (\w+) \|", (repository / "docs" / "metrics.md").read_text(), re.MULTILINE
    )

    assert names == dict(table)


def _exposed(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name

"""The running agent serves reading tasks on its DICOM port and under its web address."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from factories import hl7, peers, rows

from agent import app, database
from agent.config import Config
from agent.delivery import registry
from agent.delivery.announcements import Kind
from agent.settings import Destination
from agent.workitems import room
from db import engine


def test_a_running_agent_is_a_manager_of_workitems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study's task appears by itself; both of our clients can add one of another system's."""
    monkeypatch.setattr(room, "FOLLOW_S", 0.2)
    config = Config(
        storage={"data_dir": tmp_path, "low_water_mark_mb": 1},
        dicom={"port": 0},
        web={"port": 0},
        ups={"accept_created": True},
    )
    bind = engine.create_engine(f"sqlite:///{tmp_path / 'worklist-agent.db'}")
    database.upgrade(bind)
    with engine.session_factory(bind).begin() as session:
        rows.study(session, number=7, priority="STAT", priority_reason="bleed 94%")
    bind.dispose()
    agent = app.build(config)
    agent.start()
    try:
        base = f"http://127.0.0.1:{agent.web_port}/dicom-web"

        def tasks() -> list[str]:
            answer = httpx.get(f"{base}/workitems")
            found = answer.json() if answer.status_code == 200 else []
            return [item["00400400"]["Value"][0] for item in found]

        assert peers.wait_for("the task", tasks)[0].startswith("STAT: bleed 94%")
        told = hl7.announcement(Kind.PRIORITY)
        for destination in (
            Destination(name="rs", kind="ups-rs", url=base),
            Destination(name="dimse", kind="ups", ae_title="WLAGENT", port=agent.dicom_port),
        ):
            registry.message_channel(destination).announce(told)
        assert len(tasks()) == 2  # the same UID by either way
        foreign = httpx.get(f"{base}/workitems", headers={"Host": "evil.example"})
        assert foreign.status_code == 421
    finally:
        agent.stop()

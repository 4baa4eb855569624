"""Starting and stopping: nothing half open, nobody else's data."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories import agent_process, model_packs, peers, rows
from factories.modality import CT, Modality

from agent import app, database, sweeps
from agent import config as configs
from agent.foundation import lay
from agent.installation import InUse
from agent.web.server import WebServerError
from db import engine as engines
from db.models import Study
from dicom_nodes.errors import NodeConfigError

Make = Callable[..., app.Agent]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Builds agents over one data directory, the model in this process."""
    pack = model_packs.bright_pack(tmp_path / "pack")

    def build(**sections: Any) -> app.Agent:
        settings = agent_process.configuration(tmp_path, pack, [])
        settings |= {"inference": {"executor": "inline", "device": "cpu"}} | sections
        config = configs.from_mapping(settings, source="test")
        config.storage.data_dir.mkdir(parents=True, exist_ok=True)
        engine = engines.create_engine(config.database_url)
        database.upgrade(engine)
        engine.dispose()
        return app.build(config)

    return build


def test_a_running_agent_takes_performed_steps_and_reports_on_commitment(make: Make) -> None:
    """On the port of its images; a peer without an address is answered where it asked."""
    agent = make()
    agent.start()
    try:
        modality = Modality(agent.dicom_port)
        assert modality.create_step("2.25.1", "2.25.2") == 0
        assert modality.notify("2.25.3", "2.25.2", [("2.25.4", ["2.25.5"])]) == 0
        assert modality.ask_commitment("2.25.6", [(CT, "2.25.5")], wait_s=15) == 0
    finally:
        agent.stop()
    (report,) = modality.reports
    assert [one.sop_instance_uid for one, _ in report.failed] == ["2.25.5"]


def test_second_agent_touches_nothing_of_the_first(make: Make) -> None:
    """It is refused before it frees leases or opens a port; the first goes on."""
    first = make()
    first.start()
    try:
        with pytest.raises(InUse):
            make().start()
        assert peers.listens(first.dicom_port)
    finally:
        first.stop()

    again = make()
    again.start()
    again.stop()


@pytest.mark.parametrize("section", ["dicom", "web"])
def test_start_that_fails_closes_everything_again(make: Make, section: str) -> None:
    """No port stays open, no thread works on, and the next start succeeds."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        agent = make(**{section: {"port": taken.getsockname()[1]}})
        with pytest.raises((NodeConfigError, WebServerError)):
            agent.start()
    assert not any(worker.alive for worker in agent._workers)
    assert not agent._outbox.alive

    good = make()
    good.start()
    good.stop()


def test_study_cut_off_by_a_crash_gets_its_quiet_period_again(make: Make, tmp_path: Path) -> None:
    """The first sweep after a start does not take the time it was down for quiet."""
    config = make()._base.config
    clock = rows.NOW
    base = lay(config, lambda: clock, None)
    with base.sessions.begin() as session:
        rows.study(
            session,
            state="receiving",
            revision=0,
            assembled_count=0,
            first_instance_at=rows.minutes_ago(9),
            last_instance_at=rows.minutes_ago(8),
        )
    sweep = sweeps.Assembly(base)

    def state() -> str:
        with base.sessions() as session:
            return str(session.query(Study).one().state)

    sweep()
    assert state() == "receiving"
    clock = rows.minutes_ago(-1)
    sweep()
    assert state() == "assembled"
    base.engine.dispose()

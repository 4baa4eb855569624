"""Run the synthetic hospital against a real agent, and report what came of every study."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from agent import app, database
from agent.clock import utc_now
from agent.config import Config
from agent.demo import settings, table
from agent.demo.orthanc import OrthancPacs
from agent.demo.pacs import EmbeddedPacs
from agent.demo.scanners import Scanners, Sent
from agent.errors import AgentError
from db import engine as db_engine
from db.models import Study
from db.states import StudyState
from dicom_nodes.node import Node
from training.synthetic.scenarios import Scenario, demo_scenarios

FINAL = (StudyState.DONE, StudyState.SKIPPED, StudyState.FAILED)
POLL_S = 0.25
TIMEOUT_S = 900.0
SCANNER_AE = "SCANNER"
LOG_FILE = "agent.log"


class DemoFailed(AgentError):
    """The demo did not reach its end."""

    permanent = True


class Pacs(Protocol):
    """The embedded PACS or Orthanc."""

    ae_title: str
    host: str
    port: int

    def start(self) -> Any:
        """Listen."""

    def stop(self) -> None:
        """Stop listening; keep what was stored."""


@dataclass(frozen=True)
class Progress:
    """How far the demo is."""

    total: int
    sent: int
    analysed: int
    delivered: int


@dataclass(frozen=True)
class Demo:
    """A demo under way: the agent and the PACS run until `stop`."""

    work_dir: Path
    config: Config
    agent: app.Agent
    pacs: Pacs
    scanners: Scanners
    scenarios: Sequence[Scenario]
    sessions: sessionmaker[Session]

    @property
    def page(self) -> str:
        """Where the worklist is shown."""
        return f"http://{self.config.web.host}:{self.agent.web_port}"

    def wait(self, report: Callable[[Progress], None]) -> None:
        """Until every study has reached its end.

        Raises:
            DemoFailed: the scanners failed, or it takes longer than anything here should.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            progress = self._progress()
            report(progress)
            if self.scanners.error:
                raise DemoFailed(f"the synthetic scanner failed: {self.scanners.error}")
            if progress.delivered == progress.total:
                return
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"not finished after {TIMEOUT_S:g} s; see worklist-agent studies list and the "
                    f"log; everything lies in {self.work_dir}"
                )
            time.sleep(POLL_S)

    def rows(self) -> list[dict[str, Any]]:
        """The table, in reading order."""
        sent: dict[str, Sent] = {one.study_uid: one for one in self.scanners.sent}
        with db_engine.reading(self.sessions) as session:
            return table.rows(session, sent, self.config.priority, utc_now())

    def stop(self) -> None:
        """End scanners, agent and PACS."""
        self.scanners.stop()
        self.agent.stop()
        self.pacs.stop()

    def _progress(self) -> Progress:
        with db_engine.reading(self.sessions) as session:
            states = list(session.execute(sa.select(Study.state)).scalars())
        after_analysis = {*FINAL, StudyState.COMPOSING, StudyState.DELIVERING}
        complete = self.scanners.finished
        return Progress(
            total=len(self.scenarios),
            sent=len(self.scanners.sent),
            analysed=sum(state in after_analysis for state in states),
            delivered=sum(state in FINAL for state in states) if complete else
            min(sum(state in FINAL for state in states), len(self.scenarios) - 1),
        )  # fmt: skip


def start(
    work_dir: Path, *, seed: int, orthanc: bool, web_port: int, dicom_port: int, count: int | None
) -> Demo:
    """Prepare the database, start PACS and agent, let the scanners send in random order."""
    scenarios = demo_scenarios(seed)[:count]
    order = random.Random(seed).sample(scenarios, len(scenarios))
    pacs: Pacs = OrthancPacs(work_dir / "pacs") if orthanc else EmbeddedPacs(work_dir / "pacs")
    with contextlib.ExitStack() as undo:
        pacs.start()
        undo.callback(pacs.stop)  # Orthanc would outlive a demo that cannot start
        config = settings.demo_config(
            work_dir, (pacs.ae_title, pacs.host, pacs.port), web_port, dicom_port
        )
        config.storage.data_dir.mkdir(parents=True, exist_ok=True)
        engine = db_engine.create_engine(config.database_url)
        database.upgrade(engine)
        agent = app.build(config, log_file=work_dir / LOG_FILE)
        agent.start()
        undo.pop_all()
    receivers = (
        Node(pacs.ae_title, pacs.host, pacs.port, calling_ae=SCANNER_AE),
        Node(config.dicom.ae_title, config.dicom.host, agent.dicom_port, calling_ae=SCANNER_AE),
    )
    scanners = Scanners(order, work_dir / "scanner", receivers)
    scanners.start()
    return Demo(
        work_dir=work_dir,
        config=config,
        agent=agent,
        pacs=pacs,
        scanners=scanners,
        scenarios=order,
        sessions=db_engine.session_factory(engine),
    )

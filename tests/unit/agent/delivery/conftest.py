"""A bench for the outbox: SQLite record, results on disk, a clock, fake channels by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from factories import outbox as make
from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from agent.delivery.registry import Route
from agent.delivery.sender import Outbox
from agent.settings import DeliverySettings
from db.engine import reading
from db.models import Delivery, Event, Study

SETTINGS = DeliverySettings(
    first_retry_s=5, backoff=2, max_retry_s=900, jitter=0, dead_after_hours=72, lease_s=300
)


@dataclass
class Bench:
    """What a test of the outbox looks at."""

    sessions: sessionmaker[Session]
    results: Path
    clock: make.Clock
    channels: dict[str, make.FakeChannel]
    outcomes: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def pacs(self) -> make.FakeChannel:
        """The channel of the destination ``pacs``."""
        return self.channels["pacs"]

    def enqueue(self, kinds: tuple[str, ...] = ("sr", "seg"), **values: Any) -> Study:
        """A study with its results in the outbox."""
        with self.sessions.begin() as session:
            return make.enqueued(session, self.results, kinds, now=self.clock(), **values)

    def outbox(self, **route: Any) -> Outbox:
        """An outbox over the channels as they are now."""
        routes = {name: Route(channel, **route) for name, channel in self.channels.items()}
        return Outbox(
            self.sessions,
            routes,
            SETTINGS,
            self.results,
            clock=self.clock,
            observe=lambda *outcome: self.outcomes.append(outcome),
        )

    def run(self, **route: Any) -> int:
        """Deal with what is due."""
        return self.outbox(**route).run_once()

    def rows(self, **conditions: Any) -> list[Delivery]:
        """Outbox rows by column values."""
        query = sa.select(Delivery).filter_by(**conditions).order_by(Delivery.id)
        with reading(self.sessions) as session:
            return list(session.execute(query).scalars())

    def row(self, **conditions: Any) -> Delivery:
        """The one such row."""
        (row,) = self.rows(**conditions)
        return row

    def states(self) -> dict[str, str]:
        """Kind -> state of all rows."""
        return {row.kind: row.state for row in self.rows()}

    def study(self, study: Study) -> Study:
        """The study as it is now."""
        with reading(self.sessions) as session:
            return session.get_one(Study, study.id)

    def events(self, study: Study, kind: str) -> list[Event]:
        """Its timeline's lines of a kind."""
        query = sa.select(Event).filter_by(study_id=study.id, kind=kind).order_by(Event.id)
        with reading(self.sessions) as session:
            return list(session.execute(query).scalars())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """One destination, ``pacs``, that takes everything."""
    return Bench(
        sessions=rows.sessions(tmp_path),
        results=tmp_path / "results",
        clock=make.Clock(),
        channels={"pacs": make.FakeChannel()},
    )

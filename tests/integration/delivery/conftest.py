"""Records on both databases, and the outbox over real channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from factories import outbox as make
from factories import postgres, rows
from sqlalchemy.orm import Session, sessionmaker

from agent.delivery import registry
from agent.delivery.commitments import Commitments
from agent.delivery.proof import Prover
from agent.delivery.registry import Route
from agent.delivery.sender import Outbox
from agent.settings import DeliverySettings, Destination
from db import engine as engines
from db.base import Base
from db.models import Delivery, Study

SETTINGS = DeliverySettings(first_retry_s=5, jitter=0, lease_s=300)


@dataclass
class Record:
    """A database, results on disk, a clock, and what is looked at in tests."""

    sessions: sessionmaker[Session]
    results: Path
    clock: make.Clock = field(default_factory=make.Clock)

    def enqueue(self, kinds: tuple[str, ...], *destinations: Destination, **values: Any) -> Study:
        """A study with its results in the outbox."""
        wanted = destinations or (make.destination(),)
        with self.sessions.begin() as session:
            return make.enqueued(
                session, self.results, kinds, destinations=wanted, now=self.clock(), **values
            )

    def outbox(self, routes: dict[str, Route]) -> Outbox:
        """A worker over these routes."""
        return Outbox(self.sessions, routes, SETTINGS, self.results, clock=self.clock)

    def deliver(self, *destinations: Destination) -> int:
        """Send what is due over real channels, then look whether it arrived."""
        count = self.outbox(registry.routes(destinations, "WLAGENT")).run_once()
        self.prove(*destinations)
        return count

    def prove(self, *destinations: Destination) -> int:
        """Look whether what was sent arrived; returns how many rows moved on."""
        routes = registry.routes(destinations, "WLAGENT")
        commitments = Commitments(self.sessions, routes, SETTINGS, self.clock)
        prover = Prover(
            self.sessions, routes, SETTINGS, self.results, commitments, clock=self.clock
        )
        return sum(prover.run_once(destination.name) for destination in destinations)

    def rows(self) -> list[Delivery]:
        """All outbox rows."""
        with engines.reading(self.sessions) as session:
            return list(session.execute(sa.select(Delivery).order_by(Delivery.id)).scalars())

    def states(self) -> list[str]:
        """Their states."""
        return [row.state for row in self.rows()]

    def study(self, study: Study) -> Study:
        """The study as it is now."""
        with engines.reading(self.sessions) as session:
            return session.get_one(Study, study.id)

    def files(self) -> list[Path]:
        """Result files, in kind order."""
        return sorted(self.results.rglob("*.dcm"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgres.Cluster]:
    """One PostgreSQL server for all tests here."""
    with postgres.running() as server:
        yield server


@pytest.fixture
def sqlite(tmp_path: Path) -> Record:
    """A record on SQLite."""
    return Record(rows.sessions(tmp_path), tmp_path / "results")


@pytest.fixture
def postgresql(cluster: postgres.Cluster, tmp_path: Path) -> Iterator[Record]:
    """A record on PostgreSQL."""
    engine = engines.create_engine(cluster.database())
    Base.metadata.create_all(engine)
    yield Record(engines.session_factory(engine), tmp_path / "results")
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peers)])
def record(request: pytest.FixtureRequest) -> Record:
    """The same promises on either database."""
    chosen: Record = request.getfixturevalue(request.param)
    return chosen

"""Is the agent ready? Pure judgement over facts, and the thin function that gathers them."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from agent.observability.metrics import free_bytes
from db.engine import reading
from db.queries import worklist as queries

MB = 1_000_000


class Severity(enum.StrEnum):
    """How bad it is."""

    #: as it should be
    OK = "ok"
    #: works, but a human should look
    DEGRADED = "degraded"
    #: cannot do its work
    DOWN = "down"


@dataclass(frozen=True)
class Facts:
    """What was seen.

    Attributes:
        database_error: why the database does not answer; empty when it does.
        free_bytes: free space for the spool; None when it cannot be read.
        low_water_bytes: C-STORE answers "out of resources" below this.
        worker_alive: the inference process runs; None when there is none to watch.
        dead_letters: deliveries that were given up.
        dead_destinations: where those were meant to go.
    """

    database_error: str
    free_bytes: int | None
    low_water_bytes: int
    worker_alive: bool | None
    dead_letters: int = 0
    dead_destinations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One line of the answer; `reason` says what is wrong and how to mend it."""

    name: str
    severity: Severity
    reason: str = ""


@dataclass(frozen=True)
class Health:
    """All checks together."""

    checks: tuple[Check, ...]

    @property
    def severity(self) -> Severity:
        """The worst of the checks."""
        order = list(Severity)
        return max((c.severity for c in self.checks), key=order.index, default=Severity.OK)

    @property
    def ready(self) -> bool:
        """Degraded is ready: studies are received and read."""
        return self.severity is not Severity.DOWN


def judge(facts: Facts) -> Health:
    """Turn facts into checks."""
    return Health((_database(facts), _spool(facts), _worker(facts), _deliveries(facts)))


def gather(
    sessions: sessionmaker[Session],
    spool_dir: Path,
    *,
    low_water_mb: int,
    worker_alive: Callable[[], bool | None],
) -> Facts:
    """Look at database, disk and worker."""
    error, dead = "", queries.DeadLetters()
    try:
        with reading(sessions) as session:
            session.execute(sa.text("SELECT 1"))
            dead = queries.dead_letters(session)
    except SQLAlchemyError as caught:
        error = type(caught).__name__
    return Facts(
        database_error=error,
        free_bytes=free_bytes(spool_dir),
        low_water_bytes=low_water_mb * MB,
        worker_alive=worker_alive(),
        dead_letters=dead.number,
        dead_destinations=dead.destinations,
    )


def _database(facts: Facts) -> Check:
    if facts.database_error:
        return Check(
            "database",
            Severity.DOWN,
            f"the database does not answer ({facts.database_error}); check database.url",
        )
    return Check("database", Severity.OK)


def _spool(facts: Facts) -> Check:
    if facts.free_bytes is None:
        return Check("spool", Severity.DOWN, "the spool cannot be read; check storage.data_dir")
    if facts.free_bytes < facts.low_water_bytes:
        return Check(
            "spool",
            Severity.DOWN,
            f"{facts.free_bytes // MB} MB free, below storage.low_water_mark_mb "
            f"({facts.low_water_bytes // MB}): new images are refused; make room",
        )
    if facts.free_bytes < 2 * facts.low_water_bytes:
        return Check(
            "spool",
            Severity.DEGRADED,
            f"{facts.free_bytes // MB} MB free; images are refused below "
            f"{facts.low_water_bytes // MB} MB",
        )
    return Check("spool", Severity.OK)


def _worker(facts: Facts) -> Check:
    if facts.worker_alive is False:
        return Check(
            "worker", Severity.DEGRADED, "the inference worker is down; it is being restarted"
        )
    return Check("worker", Severity.OK)


def _deliveries(facts: Facts) -> Check:
    if not facts.dead_letters:
        return Check("deliveries", Severity.OK)
    where = ", ".join(facts.dead_destinations)
    return Check(
        "deliveries",
        Severity.DEGRADED,
        f"{facts.dead_letters} result(s) could not be delivered to {where}; mend the destination, "
        "then: worklist-agent deliveries retry",
    )

"""Keeps the lease of a row while it is sent: only the work of a dead process runs out."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Iterator

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import faults
from agent.clock import Clock
from db.queries import delivery_claims
from db.queries.delivery_claims import ClaimedDelivery

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def kept(
    sessions: sessionmaker[Session], claimed: ClaimedDelivery, lease: dt.timedelta, clock: Clock
) -> Iterator[None]:
    """Renew the lease from another thread for the length of a block, three times a lease."""
    done = threading.Event()
    keeper = threading.Thread(
        target=_renew_until, args=(sessions, claimed, lease, clock, done), name="lease", daemon=True
    )
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()


def _renew_until(
    sessions: sessionmaker[Session],
    claimed: ClaimedDelivery,
    lease: dt.timedelta,
    clock: Clock,
    done: threading.Event,
) -> None:
    while not done.wait(lease.total_seconds() / 3):
        try:
            with sessions.begin() as session:
                ours = delivery_claims.renew(session, claimed, lease=lease, now=clock())
        except Exception as error:  # noqa: BLE001  the database is away: the next renewal may work
            log.warning("lease_not_renewed", study=claimed.study_key, why=faults.describe(error))
            continue
        if not ours:
            log.warning("lease_lost", study=claimed.study_key)
            return

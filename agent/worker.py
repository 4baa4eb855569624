"""Claim → run the room → record the outcome. One of the two places that catch everything."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import faults
from agent.clock import Clock
from agent.errors import AnalysisInterrupted
from agent.rooms import Room
from db.queries import claims, studies
from db.queries.claims import Claim
from db.states import StudyState

log = structlog.get_logger(__name__)

IDLE_S = 0.25
FIRST_RETRY_S = 5.0
MAX_RETRY_S = 300.0

#: Told of (room, seconds, ok) after each piece of work.
Observe = Callable[[str, float, bool], None]


@dataclass(frozen=True)
class WorkerSettings:
    """How long a claim lasts and how often a study is tried."""

    owner: str
    lease: dt.timedelta
    max_attempts: int


class Worker:
    """A thread that works in one or several rooms until it is told to stop."""

    def __init__(
        self,
        rooms: Sequence[Room],
        sessions: sessionmaker[Session],
        settings: WorkerSettings,
        clock: Clock,
        observe: Observe = lambda _room, _seconds, _ok: None,
    ) -> None:
        self._rooms = {room.takes: room for room in rooms}
        self._sessions = sessions
        self._settings = settings
        self._clock = clock
        self._observe = observe
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=settings.owner, daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Finish the study at hand (up to `timeout_s`), then end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def run_once(self) -> bool:
        """Work on one study; False when there was none."""
        with self._sessions.begin() as session:
            claim = claims.claim(
                session,
                list(self._rooms),
                owner=self._settings.owner,
                lease=self._settings.lease,
                now=self._clock(),
            )
        if claim is None:
            return False
        room = next(r for r in self._rooms.values() if claim.state in (r.takes, r.works_as))
        started = time.monotonic()
        ok = self._run(room, claim)
        self._observe(room.name, time.monotonic() - started, ok)
        return True

    def _run(self, room: Room, claim: Claim) -> bool:
        with structlog.contextvars.bound_contextvars(study=claim.key, room=room.name):
            try:
                with self._lease_kept(claim):
                    room.run(claim, self._settings.owner)
            except AnalysisInterrupted as error:
                self._give_back(room, claim, str(error))
                return False
            except Exception as error:  # noqa: BLE001  the edge: recorded, then decided by policy
                self._record_failure(room, claim, error)
                return False
            return True

    @contextlib.contextmanager
    def _lease_kept(self, claim: Claim) -> Iterator[None]:
        """Renew the lease while the room works: only the work of a dead process runs out."""
        done = threading.Event()
        args = (claim, done)
        keeper = threading.Thread(target=self._renew_until, args=args, name="lease", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()

    def _renew_until(self, claim: Claim, done: threading.Event) -> None:
        lease = self._settings.lease
        while not done.wait(lease.total_seconds() / 3):
            try:
                with self._sessions.begin() as session:
                    kept = claims.renew(
                        session,
                        claim.study_id,
                        owner=self._settings.owner,
                        lease=lease,
                        now=self._clock(),
                    )
            except Exception as error:  # noqa: BLE001  the database is away: the next renewal may work
                log.warning("lease_not_renewed", study=claim.key, why=faults.describe(error))
                continue
            if not kept and not done.is_set():
                log.warning("lease_lost", study=claim.key)
                return

    def _give_back(self, room: Room, claim: Claim, why: str) -> None:
        with self._sessions.begin() as session:
            study = claims.owned(session, claim.study_id, self._settings.owner)
            if study is not None:
                claims.give_back(session, study, who=room.name, why=why, now=self._clock())
        log.info("study_given_back", why=why)

    def _record_failure(self, room: Room, claim: Claim, error: Exception) -> None:
        why = f"{room.name}: {faults.describe(error)}"
        permanent = bool(getattr(error, "permanent", False))
        give_up = permanent or claim.attempts >= self._settings.max_attempts
        log.error("room_failed", attempts=claim.attempts, give_up=give_up, why=why)
        now = self._clock()
        with self._sessions.begin() as session:
            study = claims.owned(session, claim.study_id, self._settings.owner)
            if study is None:
                return
            if give_up:
                studies.move(session, study, StudyState.FAILED, who=room.name, why=why, now=now)
                return
            delay_s = min(FIRST_RETRY_S * 2 ** (claim.attempts - 1), MAX_RETRY_S)
            at = now + dt.timedelta(seconds=delay_s)
            claims.retry_later(session, study, who=room.name, why=why, at=at, now=now)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                worked = self.run_once()
            except Exception as error:  # noqa: BLE001  e.g. the database is away: wait, go on
                log.error("worker_loop_failed", why=faults.describe(error))
                self._stop.wait(FIRST_RETRY_S)
                continue
            if not worked:
                self._stop.wait(IDLE_S)

"""Claim → run the room → record the outcome. One of the two places that catch everything."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import faults, leases
from agent.clock import Clock
from agent.errors import AnalysisInterrupted
from agent.rooms import Room
from db.queries import claims, studies
from db.queries.claims import Claim
from db.states import LEGAL_MOVES, StudyState

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
        """Work on one study, or on several that go together; False when there was none."""
        claimed = self._claim()
        if not claimed:
            return False
        state = claimed[0].state
        room = next(r for r in self._rooms.values() if state in (r.takes, r.works_as))
        started = time.monotonic()
        outcomes = self._run(room, claimed)
        seconds = (time.monotonic() - started) / len(claimed)
        for ok in outcomes:
            self._observe(room.name, seconds, ok)
        return True

    def _claim(self) -> list[Claim]:
        owner, lease, now = self._settings.owner, self._settings.lease, self._clock()
        takes = list(self._rooms)
        with self._sessions.begin() as session:
            first = claims.claim(session, takes, owner=owner, lease=lease, now=now)
            if first is None:
                return []
            room = self._rooms.get(StudyState.QUEUED)
            if room is None or room.works_as != first.state or room.run_many is None:
                return [first]
            more = room.batch - 1
            mates = claims.claim_mates(session, first, more, owner=owner, lease=lease, now=now)
            return [first, *mates]

    def _run(self, room: Room, claimed: Sequence[Claim]) -> list[bool]:
        """Run the room; for each claim, whether the work was done."""
        first = claimed[0]
        with structlog.contextvars.bound_contextvars(study=first.key, room=room.name):
            try:
                with contextlib.ExitStack() as kept:
                    for claim in claimed:
                        kept.enter_context(self._lease_kept(claim))
                    failed = self._failures(room, claimed)
            except AnalysisInterrupted as error:
                for claim in claimed:
                    self._give_back(room, claim, str(error))
                return [False] * len(claimed)
            except Exception as error:  # noqa: BLE001  the edge: recorded, then decided by policy
                failed = dict.fromkeys((claim.study_id for claim in claimed), error)
        for claim in claimed:
            if claim.study_id in failed:
                with structlog.contextvars.bound_contextvars(study=claim.key, room=room.name):
                    self._record_failure(room, claim, failed[claim.study_id])
        return [claim.study_id not in failed for claim in claimed]

    def _failures(self, room: Room, claimed: Sequence[Claim]) -> Mapping[int, Exception]:
        if len(claimed) > 1 and room.run_many is not None:
            return room.run_many(claimed, self._settings.owner)
        room.run(claimed[0], self._settings.owner)
        return {}

    def _lease_kept(self, claim: Claim) -> contextlib.AbstractContextManager[None]:
        owner, lease = self._settings.owner, self._settings.lease

        def renew() -> bool:
            with self._sessions.begin() as session:
                return claims.renew(
                    session, claim.study_id, owner=owner, lease=lease, now=self._clock()
                )

        return leases.kept(renew, lease, claim.key)

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
            if give_up and StudyState.FAILED in LEGAL_MOVES[StudyState(study.state)]:
                studies.move(session, study, StudyState.FAILED, who=room.name, why=why, now=now)
                return
            delay_s = min(FIRST_RETRY_S * 2 ** min(claim.attempts - 1, 10), MAX_RETRY_S)
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

"""A thread that claims drafts and has them written; whatever happens, no study waits for it."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import faults, leases
from agent.clock import Clock
from agent.drafting.room import DraftOvertaken
from agent.errors import AnalysisInterrupted
from db.queries import drafts
from db.queries.drafts import ClaimedDraft
from db.states import DraftState

log = structlog.get_logger(__name__)

IDLE_S = 1.0
TROUBLE_S = 5.0
FIRST_RETRY = dt.timedelta(seconds=30)
MAX_RETRY = dt.timedelta(hours=3)
#: A draft this old is nobody's draft any more: the template's stays.
GIVE_UP_AFTER = dt.timedelta(days=3)
#: How long drafts let studies go first that wait for the same encoder.
PATIENCE = dt.timedelta(minutes=10)

Observe = Callable[[str, float, bool], None]


@dataclass(frozen=True)
class DraftingSettings:
    """Whose leases, and how long they last."""

    owner: str
    lease: dt.timedelta


class DraftingWorker:
    """Writes one draft at a time until it is told to stop; several share the work by leases."""

    def __init__(
        self,
        run: Callable[[ClaimedDraft], None],
        sessions: sessionmaker[Session],
        settings: DraftingSettings,
        clock: Clock,
    ) -> None:
        self._run = run
        self._sessions = sessions
        self._settings = settings
        self._clock = clock
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
        """Finish the draft at hand (up to `timeout_s`), then end; the rest is on record."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def run_once(self) -> bool:
        """Work on one draft; False when none was due."""
        with self._sessions.begin() as session:
            claimed = drafts.claim(
                session,
                owner=self._settings.owner,
                lease=self._settings.lease,
                now=self._clock(),
                patience=PATIENCE,
            )
        if claimed is None:
            return False
        with structlog.contextvars.bound_contextvars(study=claimed.study_key, room="drafting"):
            self._deal_with(claimed)
        return True

    def _deal_with(self, claimed: ClaimedDraft) -> None:
        lease = self._settings.lease

        def renew() -> bool:
            with self._sessions.begin() as session:
                return drafts.renew(session, claimed, lease=lease, now=self._clock())

        try:
            with leases.kept(renew, lease, claimed.study_key):
                self._run(claimed)
        except AnalysisInterrupted as error:
            self._record(claimed, error, self._clock(), None)
        except Exception as error:  # noqa: BLE001  the edge: recorded, then decided by policy
            now = self._clock()
            over = isinstance(error, DraftOvertaken)
            if (
                over
                or getattr(error, "permanent", False)
                or now - claimed.created_at > GIVE_UP_AFTER
            ):
                state = DraftState.SUPERSEDED if over else DraftState.FAILED
                self._record(claimed, error, now, state)
            else:
                delay = FIRST_RETRY * 2 ** min(claimed.attempts - 1, 10)
                self._record(claimed, error, now + min(delay, MAX_RETRY), None)

    def _record(
        self, claimed: ClaimedDraft, error: Exception, at: dt.datetime, state: DraftState | None
    ) -> None:
        """Give it back until then, or (a state) be done with it."""
        why = faults.describe(error)
        log.warning("draft_failed", attempts=claimed.attempts, give_up=state is not None, why=why)
        with self._sessions.begin() as session:
            row = drafts.owned(session, claimed)
            if row is None:
                return
            row.last_error = why
            if state is not None:
                drafts.finish(row, state, at)
                return
            drafts.give_back(row, at)
            if isinstance(error, AnalysisInterrupted):
                row.attempts = max(row.attempts - 1, 0)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                worked = self.run_once()
            except Exception as error:  # noqa: BLE001  e.g. the database is away: wait, go on
                log.error("drafting_loop_failed", why=faults.describe(error))
                self._stop.wait(TROUBLE_S)
                continue
            if not worked:
                self._stop.wait(IDLE_S)

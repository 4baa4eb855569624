"""The audit trail of a running agent: start and stop, sending what waits, retention."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import socket

import structlog

from agent import __version__
from agent.audit import transport
from agent.audit.kinds import Kind, Occurrence
from agent.audit.messages import Source, syslog
from agent.audit.record import record
from agent.audit.transport import AuditNotSent
from agent.foundation import Foundation
from agent.schedule import Sweep
from db.engine import reading
from db.queries import audit as queries

BATCH = 200
SYSTEM = "worklist-agent"

log = structlog.get_logger(__name__)


class AuditService:
    """Made once from the foundation."""

    def __init__(self, base: Foundation) -> None:
        self._base = base
        self._settings = base.config.audit
        self._source = Source(
            source_id=self._settings.source_id,
            site=self._settings.site,
            ae_title=base.config.dicom.ae_title,
            host=socket.gethostname(),
            process_id=os.getpid(),
        )
        self._down = False
        self._running = False

    def started(self) -> None:
        """Say that the agent runs, and whether it runs with another configuration than before."""
        self._running = True
        now = self._base.clock()
        detail = f"version {__version__}, configuration {self._configuration()}"
        with self._base.sessions.begin() as session:
            before = queries.last(session, Kind.STARTED)
            record(session, Occurrence(Kind.STARTED, SYSTEM, detail=detail), now)
            if before and before.detail != detail:
                change = f"{before.detail} -> {detail}"
                record(session, Occurrence(Kind.CONFIGURATION_CHANGED, SYSTEM, detail=change), now)

    def stopped(self) -> None:
        """Say that the agent stops (if it ran); it is sent at the next start."""
        if not self._running:
            return
        self._running = False
        with self._base.sessions.begin() as session:
            record(session, Occurrence(Kind.STOPPED, SYSTEM), self._base.clock())

    def sweeps(self) -> list[Sweep]:
        """Sending (where there is a repository) and retention."""
        every = self._base.config.schedule
        sweeps = [Sweep("audit retention", every.retention_s, self.forget)]
        if self._settings.repository:
            sweeps.append(Sweep("audit sending", self._settings.every_s, self.send_waiting))
        return sweeps

    def send_waiting(self) -> int:
        """Send what waits, oldest first, until nothing does or the repository fails."""
        sent = 0
        while True:
            with reading(self._base.sessions) as session:
                events = queries.waiting(session, BATCH)
            if not events:
                return sent
            try:
                transport.send([syslog(e, self._source) for e in events], self._settings)
            except AuditNotSent as error:
                self._tell(down=True, why=str(error))
                return sent
            with self._base.sessions.begin() as session:
                queries.mark_sent(session, [e.id for e in events], self._base.clock())
            sent += len(events)
            self._tell(down=False)

    def forget(self) -> None:
        """Remove what is older than it must be; with a repository never what it did not get."""
        before = self._base.clock() - dt.timedelta(days=self._settings.keep_days)
        with self._base.sessions.begin() as session:
            queries.purge(session, before, keep_waiting=bool(self._settings.repository))

    def _tell(self, *, down: bool, why: str = "") -> None:
        """Once when it begins to fail, once when it works again."""
        if down and not self._down:
            log.error("audit_repository_down", why=why)
        if self._down and not down:
            log.warning("audit_repository_up")
        self._down = down

    def _configuration(self) -> str:
        text = self._base.config.model_dump_json()
        return hashlib.sha256(text.encode()).hexdigest()[:16]

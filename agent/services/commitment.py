"""Storage commitment asked of us: bytes and rows are checked, the report is brought to the peer.

The request is kept before success is answered; reports come from the record, so that neither a
restart nor a peer that is away loses one.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import faults, retry
from agent.clock import Clock, utc_now
from agent.errors import DeliveryError
from agent.retry import GiveUp
from agent.settings import DeliverySettings
from db.engine import reading
from db.models import CommitmentTransaction
from db.queries import commitments
from db.queries.commitments import Stored
from dicom_nodes import statuses
from dicom_nodes.commitment import (
    CLASS_INSTANCE_CONFLICT,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    Reference,
    Report,
    Request,
)
from dicom_nodes.node import Node
from dicom_nodes.scp.commitment import RESOURCE_LIMITATION, Reply
from dicom_nodes.scu import commitment as scu

log = structlog.get_logger(__name__)

#: Requests of one peer that may wait for their report.
MAX_OPEN = 1_000
#: A pass begins no further report after so long.
PASS_S = 10.0
#: Associations remembered to report on; beyond it the oldest is forgotten.
MAX_REPLIES = 200


class CommitmentRequests:
    """Takes requests on association threads; `run_once` reports on what is due.

    Args:
        sessions: of the record.
        spool: what `Instance.path` is relative to.
        nodes: AE title -> where a peer takes its reports.
        settings: backoff and the age at which a report is given up.
        clock: now, in UTC.
    """

    def __init__(
        self,
        sessions: sessionmaker[Session],
        spool: Path,
        nodes: Mapping[str, Node],
        settings: DeliverySettings,
        clock: Clock = utc_now,
    ) -> None:
        self._sessions = sessions
        self._spool = spool
        self._nodes = nodes
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._replies: dict[tuple[str, str], Reply] = {}

    def keep(self, request: Request, calling_ae: str, reply: Reply) -> int:
        """Keep a request; a repeated one is reported on again."""
        peer, now = calling_ae[:64], self._clock()
        pairs = [(one.sop_class_uid, one.sop_instance_uid) for one in request.references]
        with self._sessions.begin() as session:
            known = commitments.find(session, request.transaction_uid, commitments.SCP, peer)
            if known is not None:
                known.state, known.next_attempt_at, known.attempts = commitments.OPEN, now, 0
            elif commitments.count_open(session, peer) >= MAX_OPEN:
                log.warning("commitment_request_refused", calling_ae=peer)
                return RESOURCE_LIMITATION
            else:
                commitments.add(session, request.transaction_uid, commitments.SCP, peer, pairs, now)
        with self._lock:
            self._replies[peer, request.transaction_uid] = reply
            while len(self._replies) > MAX_REPLIES:
                self._replies.pop(next(iter(self._replies)))
        log.info("commitment_requested", instances=len(pairs), calling_ae=peer)
        return statuses.SUCCESS

    def run_once(self) -> int:
        """Report on everything that is due; returns how many reports were taken."""
        with reading(self._sessions) as session:
            due = commitments.due(session, self._clock())
        taken, until = 0, time.monotonic() + PASS_S
        for row in due:
            if time.monotonic() > until:
                break  # the rest is due at the next pass
            taken += self._report_on(row)
        return taken

    def verify(self, transaction_uid: str, references: list[tuple[str, str]]) -> Report:
        """Look at row and bytes of everything a request names."""
        with reading(self._sessions) as session:
            stored = commitments.stored(session, [uid for _, uid in references])
        kept, failed = [], []
        for sop_class, uid in references:
            reason = self._problem(sop_class, stored.get(uid))
            reference = Reference(sop_class, uid)
            if reason is None:
                kept.append(reference)
            else:
                failed.append((reference, reason))
        return Report(transaction_uid, tuple(kept), tuple(failed))

    def _problem(self, sop_class: str, row: Stored | None) -> int | None:
        """Failure Reason, or None when the instance is safe."""
        if row is None:
            return NO_SUCH_INSTANCE
        if sop_class and sop_class != row.sop_class_uid:
            return CLASS_INSTANCE_CONFLICT
        path = self._spool / row.path
        try:
            if path.stat().st_size != row.size_bytes:
                return PROCESSING_FAILURE
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            return NO_SUCH_INSTANCE
        return None if row.sha256 in {None, digest} else PROCESSING_FAILURE

    def _report_on(self, row: CommitmentTransaction) -> bool:
        report = self.verify(row.transaction_uid, commitments.references_of(row))
        try:
            self._bring(row.peer, report)
        except Exception as error:  # noqa: BLE001  the edge: recorded, then decided by policy
            self._failed(row, error)
            return False
        with self._sessions.begin() as session:
            commitments.close(_again(session, row), self._clock())
        log.info(
            "commitment_answered",
            calling_ae=row.peer,
            instances=len(report.committed),
            missing=len(report.failed),
        )
        return True

    def _bring(self, peer: str, report: Report) -> None:
        """To the peer's address if we know it, else on the association that it asked on."""
        with self._lock:
            reply = self._replies.pop((peer, report.transaction_uid), None)
        node = self._nodes.get(peer)
        if node is not None:
            scu.report(node, report)
        elif reply is not None:
            reply(report)
        else:
            raise DeliveryError(
                f"nobody knows where {peer} takes its commitment report; "
                "list it under [[commitment.peers]]",
                permanent=True,
            )

    def _failed(self, row: CommitmentTransaction, error: Exception) -> None:
        now, why = self._clock(), faults.describe(error)
        if row.peer not in self._nodes:
            error = DeliveryError(why, permanent=True)  # that association does not come back
        with self._sessions.begin() as session:
            line = _again(session, row)
            line.attempts += 1
            decision = retry.decide(
                error,
                attempts=line.attempts,
                age=now - line.created_at,
                now=now,
                settings=self._settings,
            )
            if isinstance(decision, GiveUp):
                commitments.close(line, now, state=commitments.DEAD, why=why)
                log.error("commitment_report_dead", calling_ae=row.peer, why=why)
            else:
                line.next_attempt_at, line.last_error = decision.at, why
                log.warning("commitment_report_failed", calling_ae=row.peer, why=why)


def lifetime(settings: DeliverySettings, hours: float) -> DeliverySettings:
    """The outbox's backoff with another age at which we give up."""
    return settings.model_copy(update={"dead_after_hours": hours})


def forget(sessions: sessionmaker[Session], before: dt.datetime) -> int:
    """Remove transactions older than that."""
    with sessions.begin() as session:
        return commitments.purge(session, before)


def _again(session: Session, row: CommitmentTransaction) -> CommitmentTransaction:
    return session.get_one(CommitmentTransaction, row.id, with_for_update=True)

"""Storage commitment of results: transactions we opened, and what their reports change."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import retry
from agent.clock import Clock, utc_now
from agent.delivery import marks
from agent.delivery.outbox import WHO
from agent.delivery.registry import Route
from agent.errors import DeliveryError
from agent.retry import GiveUp
from agent.settings import DeliverySettings
from db.models import Delivery
from db.queries import commitments, outbox, proof
from db.states import UNPROVEN_DELIVERIES
from dicom_nodes import answers, statuses
from dicom_nodes.commitment import Reference, Report

log = structlog.get_logger(__name__)

#: PS3.7 annex C: answered to a report of a transaction that we never opened.
INVALID_ARGUMENT = 0x0115


@dataclass(frozen=True)
class Commitments:
    """The record of what we asked; takes reports from whichever association they come on."""

    sessions: sessionmaker[Session]
    routes: Mapping[str, Route]
    settings: DeliverySettings
    clock: Clock = utc_now

    def asked(self, uid: str, destination: str, references: Sequence[Reference]) -> None:
        """Keep a transaction before it is asked: its report may come at once."""
        pairs = [(one.sop_class_uid, one.sop_instance_uid) for one in references]
        with self.sessions.begin() as session:
            commitments.add(session, uid, commitments.SCU, destination, pairs, self.clock())

    def take(self, report: Report) -> int:
        """Act on a report, durably, and return the status to answer.

        A report that comes twice changes nothing the second time. One of a transaction that was
        asked again meanwhile counts: what it says is as true.
        """
        now = self.clock()
        with self.sessions.begin() as session:
            row = commitments.find(session, report.transaction_uid, commitments.SCU)
            if row is None:
                log.warning("commitment_unknown", objects=len(report.committed))
                return INVALID_ARGUMENT
            if row.state == commitments.REPORTED:
                return statuses.SUCCESS
            ours = {uid for _, uid in commitments.references_of(row)}
            destination = row.peer
            kept = ours & {one.sop_instance_uid for one in report.committed}
            reasons = {one.sop_instance_uid: reason for one, reason in report.failed}
            lost = ours & set(reasons)
            self._committed(session, destination, kept - lost)
            failed = proof.waiting_for_commitment(session, destination, lost)
            commitments.close(row, now)
            codes = sorted({reasons[uid] for uid in lost})
        if failed:
            words = ", ".join(f"{answers.meaning(code)} (0x{code:04X})" for code in codes)
            for study_id, delivery_id in failed:
                self.send_again(
                    delivery_id, study_id, f"{destination} did not commit to it: {words}"
                )
        log.info("commitment_reported", objects=len(kept), missing=len(failed))
        return statuses.SUCCESS

    def send_again(self, delivery_id: int, study_id: int, why: str) -> None:
        """Put an unproven row back into the queue, or give it up when its time is over."""
        now = self.clock()
        with self.sessions.begin() as session:
            study = outbox.locked_study(session, study_id)
            row = session.get(Delivery, delivery_id, with_for_update=True)
            if row is None or row.state not in UNPROVEN_DELIVERIES:
                return
            decision = retry.decide(
                DeliveryError(why, permanent=False),
                attempts=row.attempts,
                age=now - row.created_at,
                now=now,
                settings=self.settings,
            )
            if isinstance(decision, GiveUp):
                why = f"{why} ({decision.reason})"
                marks.dead(session, study, row, now, why=why)
                log.error("delivery_dead", study=study.key, delivery=row.id, why=why)
            else:
                marks.sent_again(session, study, row, now, at=decision.at, why=why)
                log.warning("delivery_sent_again", study=study.key, delivery=row.id, why=why)
            outbox.settle(session, study, who=WHO, now=now)

    def _committed(self, session: Session, destination: str, sop_uids: set[str]) -> None:
        now = self.clock()
        route = self.routes.get(destination)
        reads_back = route is None or route.proof is None or route.proof.read_back
        waiting = proof.waiting_for_commitment(session, destination, sop_uids)
        for study_id, pairs in itertools.groupby(waiting, key=lambda pair: pair[0]):
            study = outbox.locked_study(session, study_id)
            for _, delivery_id in pairs:
                row = session.get_one(Delivery, delivery_id, with_for_update=True)
                marks.committed(session, study, row, now)
                if not reads_back:
                    marks.arrived(session, study, row, now, seen=False)
            outbox.settle(session, study, who=WHO, now=now)

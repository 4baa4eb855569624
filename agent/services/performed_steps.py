"""Performed procedure steps: kept before success is answered, whether the study is here or not."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from agent.clock import Clock, utc_now
from db.models import PerformedStep
from db.queries import arrivals
from dicom_nodes import statuses
from dicom_nodes.scp import mpps
from dicom_nodes.scp.dispatch import Service
from dicom_nodes.scp.mpps import StepMessage, StepStatus

#: PS3.7 annex C and PS3.4 F.7.2.2.2.
DUPLICATE_INSTANCE = 0x0111
MAY_NO_LONGER_BE_UPDATED = 0x0110

FINAL = frozenset({StepStatus.COMPLETED, StepStatus.DISCONTINUED})

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class PerformedSteps:
    """Keeps what modalities say of their steps."""

    sessions: sessionmaker[Session]
    clock: Clock = utc_now

    def service(self) -> Service:
        """As the storage server hosts it."""
        return mpps.service(self.create, self.update)

    def create(self, message: StepMessage) -> int:
        """N-CREATE: a new step, one whose update overtook it, or one that is repeated."""
        try:
            return self._create(message)
        except IntegrityError:  # the same message on two associations: the other one was first
            return self._create(message)

    def _create(self, message: StepMessage) -> int:
        with self.sessions.begin() as session:
            rows = arrivals.steps(session, message.sop_uid)
            if not rows:
                self._add(session, message, message.status or StepStatus.IN_PROGRESS, created=True)
                return statuses.SUCCESS
            if not rows[0].created:
                return self._catch_up(session, rows[0], message)
            same = {row.study_uid for row in rows if row.study_uid} == set(message.study_uids)
            log.info("performed_step_repeated", calling_ae=message.calling_ae)
            return statuses.SUCCESS if same else DUPLICATE_INSTANCE

    def update(self, message: StepMessage) -> int:
        """N-SET: takes over what it says, also when the N-CREATE has not come (yet)."""
        now = self.clock()
        with self.sessions.begin() as session:
            rows = arrivals.steps(session, message.sop_uid)
            if not rows:
                status = message.status or StepStatus.IN_PROGRESS
                self._add(session, message, status, created=False)
                return statuses.SUCCESS
            if rows[0].status in FINAL:
                return _after_the_end(rows[0], message)
            for row in rows:
                arrivals.change_step(row, status=message.status, series=_pairs(message), now=now)
        log.info("performed_step_changed", status=message.status, calling_ae=message.calling_ae)
        return statuses.SUCCESS

    def _add(
        self, session: Session, message: StepMessage, status: StepStatus, *, created: bool
    ) -> None:
        arrivals.add_step(
            session,
            sop_uid=message.sop_uid,
            study_uids=message.study_uids,
            status=status,
            calling_ae=message.calling_ae[:64],
            series=_pairs(message) or [],
            created=created,
            now=self.clock(),
        )
        log.info("performed_step_created", status=status, calling_ae=message.calling_ae)

    def _catch_up(self, session: Session, row: PerformedStep, message: StepMessage) -> int:
        """The update was here first: what it said stays, the studies are known now."""
        now: dt.datetime = self.clock()
        series = arrivals.series_in(row.references)
        session.delete(row)
        session.flush()
        arrivals.add_step(
            session,
            sop_uid=message.sop_uid,
            study_uids=message.study_uids or ([row.study_uid] if row.study_uid else ()),
            status=row.status,
            calling_ae=row.calling_ae,
            series=series,
            created=True,
            now=now,
        )
        return statuses.SUCCESS


def _after_the_end(row: PerformedStep, message: StepMessage) -> int:
    """A repeated last word is success; anything else comes too late."""
    same_status = message.status in {None, row.status}
    named = {uid for series in message.series or () for uid in series.sop_uids}
    if same_status and named <= arrivals.instances_in(row.references):
        return statuses.SUCCESS
    log.warning("performed_step_ended_before", calling_ae=message.calling_ae)
    return MAY_NO_LONGER_BE_UPDATED


def _pairs(message: StepMessage) -> list[tuple[str, tuple[str, ...]]] | None:
    if message.series is None:
        return None
    return [(series.series_uid, series.sop_uids) for series in message.series]

"""Availability notices: kept before success is answered, whether the study is here or not."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from agent.clock import Clock, utc_now
from db.queries import arrivals
from dicom_nodes import statuses
from dicom_nodes.scp import availability
from dicom_nodes.scp.availability import Notice
from dicom_nodes.scp.dispatch import Service

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Notices:
    """Keeps what archives say they hold."""

    sessions: sessionmaker[Session]
    clock: Clock = utc_now

    def service(self) -> Service:
        """As the storage server hosts it."""
        return availability.service(self.keep)

    def keep(self, notice: Notice) -> int:
        """One notice; a repeated one changes nothing."""
        try:
            with self.sessions.begin() as session:
                arrivals.add_notice(
                    session,
                    sop_uid=notice.sop_uid,
                    study_uid=notice.study_uid,
                    calling_ae=notice.calling_ae[:64],
                    series=[(series.series_uid, series.sop_uids) for series in notice.series],
                    now=self.clock(),
                )
        except IntegrityError:  # the same notice on two associations: the other one was first
            return statuses.SUCCESS
        count = sum(len(series.sop_uids) for series in notice.series)
        log.info("availability_noticed", instances=count, calling_ae=notice.calling_ae)
        return statuses.SUCCESS

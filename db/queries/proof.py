"""Deliveries that were taken and are not proven yet, by name: due, still so, deferred.

Every function takes a session and leaves the commit to its caller.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Delivery, Result, Study
from db.states import OPEN_DELIVERIES, UNPROVEN_DELIVERIES, DeliveryState

#: Rows of one look; what is left is due at the next, a second later.
BATCH = 500


@dataclass(frozen=True)
class Unproven:
    """One object that a destination took, with what is needed to prove that it is there."""

    id: int
    state: DeliveryState
    kind: str
    sop_uid: str
    sop_class_uid: str
    series_uid: str
    path: str
    attempts: int
    proof_attempts: int
    created_at: dt.datetime
    sent_at: dt.datetime
    study_id: int
    study_key: str
    study_uid: str


def due(session: Session, destination: str, now: dt.datetime) -> list[Unproven]:
    """What may be asked about at this destination now, the most urgent study first."""
    query = (
        sa.select(Delivery, Result, Study)
        .join(Result, Result.id == Delivery.result_id)
        .join(Study, Study.id == Delivery.study_id)
        .where(
            Delivery.destination == destination,
            Delivery.state.in_(UNPROVEN_DELIVERIES),
            Delivery.next_attempt_at <= now,
        )
        .order_by(Study.priority_rank, Study.id, Delivery.id)
        .limit(BATCH)
    )
    return [_unproven(*row) for row in session.execute(query)]


def destinations(session: Session) -> list[str]:
    """Destinations that hold something unproven."""
    query = sa.select(Delivery.destination).where(Delivery.state.in_(UNPROVEN_DELIVERIES))
    return list(session.execute(query.distinct()).scalars())


def still(session: Session, rows: Collection[Unproven]) -> dict[int, Delivery]:
    """Those rows, locked, that nobody has moved on or sent again since they were read."""
    sent = {row.id: row.sent_at for row in rows}
    query = (
        sa.select(Delivery)
        .where(Delivery.id.in_(sent), Delivery.state.in_(UNPROVEN_DELIVERIES))
        .order_by(Delivery.id)
        .with_for_update()
    )
    found = session.execute(query).scalars()
    return {row.id: row for row in found if row.sent_at == sent[row.id]}


def waiting_for_commitment(
    session: Session, destination: str, sop_uids: Collection[str]
) -> Sequence[tuple[int, int]]:
    """(study id, delivery id) of objects that were sent there and not committed yet."""
    query = (
        sa.select(Delivery.study_id, Delivery.id)
        .where(
            Delivery.destination == destination,
            Delivery.subject.in_(sop_uids),
            Delivery.state == DeliveryState.SENT,
        )
        .order_by(Delivery.study_id, Delivery.id)
    )
    return [(row[0], row[1]) for row in session.execute(query)]


def open_of(session: Session, study_id: int, destination: str) -> Sequence[Delivery]:
    """Objects of a study that are still on their way to a destination, locked."""
    query = (
        sa.select(Delivery)
        .where(
            Delivery.study_id == study_id,
            Delivery.destination == destination,
            Delivery.result_id.is_not(None),
            Delivery.state.in_(OPEN_DELIVERIES - {DeliveryState.SENDING}),
        )
        .order_by(Delivery.id)
        .with_for_update()
    )
    return session.execute(query).scalars().all()


def defer(session: Session, destination: str, until: dt.datetime) -> None:
    """Ask an unreachable destination nothing until then."""
    early = (
        sa.select(Delivery.id)
        .where(
            Delivery.destination == destination,
            Delivery.state.in_(UNPROVEN_DELIVERIES),
            Delivery.next_attempt_at < until,
        )
        .with_for_update(skip_locked=True)
    )
    session.execute(
        sa.update(Delivery)
        .where(Delivery.id.in_(early))
        .values(next_attempt_at=until)
        .execution_options(synchronize_session=False)
    )


def _unproven(row: Delivery, result: Result, study: Study) -> Unproven:
    return Unproven(
        id=row.id,
        state=DeliveryState(row.state),
        kind=row.kind,
        sop_uid=row.subject,
        sop_class_uid=result.sop_class_uid,
        series_uid=result.series_uid,
        path=result.path,
        attempts=row.attempts,
        proof_attempts=row.proof_attempts,
        created_at=row.created_at,
        sent_at=row.sent_at or row.created_at,
        study_id=study.id,
        study_key=study.key,
        study_uid=study.study_uid,
    )

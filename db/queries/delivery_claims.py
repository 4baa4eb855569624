"""Claim outbox rows with a lease: compare-and-set on SQLite, SKIP LOCKED on PostgreSQL.

Every function takes a session and leaves the commit to its caller.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from db.models import Analysis, Delivery, Result, Study
from db.states import UNSENT_DELIVERIES, DeliveryState

#: Sent first to each destination: routing rules of a PACS read it (the rest follows in this order).
ORDER = ("sr", "seg", "pm", "sc")
#: Kinds without an object behind them; they wait for no report, and one at a time for each other.
MESSAGES = ("priority", "report")
#: The other objects of an analysis stop waiting for its report after this many failed attempts, so
#: that a class one destination cannot take now does not hold back what it can.
ORDER_PATIENCE = 3


@dataclass(frozen=True)
class ClaimedDelivery:
    """One row of the outbox, ours until the lease ends, with what is needed to send it."""

    id: int
    owner: str
    attempts: int
    destination: str
    kind: str
    subject: str
    path: str
    created_at: dt.datetime
    study_id: int
    study_key: str
    study_uid: str
    patient_id: str
    issuer_of_patient_id: str
    accession_number: str


def claim(
    session: Session, *, owner: str, lease: dt.timedelta, now: dt.datetime
) -> ClaimedDelivery | None:
    """Lease the next due row: most urgent study first, its report before its other objects.

    A row whose lease ran out is due again: its sender died between sending and recording. Rows that
    a newer revision's result has overtaken are marked SUPERSEDED on the way.
    """
    while True:
        row = session.execute(_due(now)).scalar_one_or_none()
        if row is None:
            return None
        if _is_overtaken(session, row):
            _set(session, row, state=DeliveryState.SUPERSEDED, lease_owner=None, lease_until=None)
        elif _set(
            session,
            row,
            state=DeliveryState.SENDING,
            lease_owner=owner,
            lease_until=now + lease,
            attempts=row.attempts + 1,
        ):
            return _claimed(session, row.id, owner)


def renew(
    session: Session, claimed: ClaimedDelivery, *, lease: dt.timedelta, now: dt.datetime
) -> bool:
    """Prolong our lease while a long send goes on; False when it is no longer ours."""
    result = session.execute(
        sa.update(Delivery)
        .where(
            Delivery.id == claimed.id,
            Delivery.state == DeliveryState.SENDING,
            Delivery.lease_owner == claimed.owner,
            Delivery.attempts == claimed.attempts,
        )
        .values(lease_until=now + lease)
    )
    return _rowcount(result) == 1


def owned(session: Session, claimed: ClaimedDelivery) -> Delivery | None:
    """The row, locked, if it is still ours; None when the lease was lost and given away."""
    query = sa.select(Delivery).where(
        Delivery.id == claimed.id,
        Delivery.state == DeliveryState.SENDING,
        Delivery.lease_owner == claimed.owner,
        Delivery.attempts == claimed.attempts,
    )
    return session.execute(query.with_for_update()).scalar_one_or_none()


def expire_leases(session: Session, now: dt.datetime) -> int:
    """Give rows whose lease ran out back to the queue; returns how many."""
    return _release(session, Delivery.lease_until <= now, now)


def release_all_of(session: Session, owner_prefix: str, now: dt.datetime) -> int:
    """At start: free what an earlier life of this node still holds; returns how many."""
    return _release(session, Delivery.lease_owner.startswith(owner_prefix, autoescape=True), now)


def defer(session: Session, destination: str, until: dt.datetime) -> int:
    """Leave an unreachable destination alone until then; returns how many rows wait longer now.

    One row per pause finds out whether it is back; hundreds, each waiting for a time-out, would
    keep every other destination from its turn.
    """
    # SKIP LOCKED: two workers that defer the same rows in different order must not deadlock
    early = (
        sa.select(Delivery.id)
        .where(
            Delivery.destination == destination,
            Delivery.state == DeliveryState.PENDING,
            Delivery.next_attempt_at < until,
        )
        .with_for_update(skip_locked=True)
    )
    result = session.execute(
        sa.update(Delivery)
        .where(Delivery.id.in_(early))
        .values(next_attempt_at=until)
        .execution_options(synchronize_session=False)
    )
    return _rowcount(result)


def _due(now: dt.datetime) -> sa.Select[Delivery]:
    due = sa.or_(
        sa.and_(Delivery.state == DeliveryState.PENDING, Delivery.next_attempt_at <= now),
        sa.and_(Delivery.state == DeliveryState.SENDING, Delivery.lease_until <= now),
    )
    rank = sa.case({kind: n for n, kind in enumerate(ORDER)}, value=Delivery.kind, else_=0)
    return (
        sa.select(Delivery)
        .join(Study, Study.id == Delivery.study_id)
        .where(due, ~_waits_for_report(), ~_waits_for_older_message(now))
        .order_by(Study.priority_rank, rank, Delivery.next_attempt_at, Delivery.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Delivery)
    )


def _waits_for_report() -> sa.ColumnElement[bool]:
    report = aliased(Delivery)
    return sa.and_(
        Delivery.kind.not_in((ORDER[0], *MESSAGES)),
        sa.exists().where(
            report.analysis_id == Delivery.analysis_id,
            report.destination == Delivery.destination,
            report.kind == ORDER[0],
            report.state.in_(UNSENT_DELIVERIES),
            report.attempts < ORDER_PATIENCE,
        ),
    )


def _waits_for_older_message(now: dt.datetime) -> sa.ColumnElement[bool]:
    # news of one study arrives in its order: what is in hand may carry yesterday's level
    older = aliased(Delivery)
    return sa.and_(
        Delivery.kind.in_(MESSAGES),
        sa.exists().where(
            older.study_id == Delivery.study_id,
            older.destination == Delivery.destination,
            older.kind == Delivery.kind,
            older.id != Delivery.id,
            older.state == DeliveryState.SENDING,
            older.lease_until > now,
        ),
    )


def _is_overtaken(session: Session, row: Delivery) -> bool:
    mine = sa.select(Analysis.revision).where(Analysis.id == row.analysis_id).scalar_subquery()
    newer = (
        sa.select(Result.id)
        .join(Analysis, Analysis.id == Result.analysis_id)
        .where(Result.study_id == row.study_id, Analysis.revision > mine)
    )
    return session.execute(newer.limit(1)).first() is not None


def _set(session: Session, row: Delivery, **values: object) -> bool:
    """Compare-and-set: False when somebody changed the row since it was read."""
    result = session.execute(
        sa.update(Delivery)
        .where(
            Delivery.id == row.id,
            Delivery.state == row.state,
            Delivery.attempts == row.attempts,
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    session.expire(row)
    return _rowcount(result) == 1


def _claimed(session: Session, delivery_id: int, owner: str) -> ClaimedDelivery:
    query = (
        sa.select(Delivery, Study, Result.path)
        .join(Study, Study.id == Delivery.study_id)
        .outerjoin(Result, Result.id == Delivery.result_id)
        .where(Delivery.id == delivery_id)
    )
    row, study, path = session.execute(query).one()
    return ClaimedDelivery(
        id=row.id,
        owner=owner,
        attempts=row.attempts,
        destination=row.destination,
        kind=row.kind,
        subject=row.subject,
        path=path or "",
        created_at=row.created_at,
        study_id=study.id,
        study_key=study.key,
        study_uid=study.study_uid,
        patient_id=study.patient_id,
        issuer_of_patient_id=study.issuer_of_patient_id,
        accession_number=study.accession_number,
    )


def _release(session: Session, whose: sa.ColumnElement[bool], now: dt.datetime) -> int:
    result = session.execute(
        sa.update(Delivery)
        .where(Delivery.state == DeliveryState.SENDING, whose)
        .values(
            state=DeliveryState.PENDING, next_attempt_at=now, lease_owner=None, lease_until=None
        )
    )
    return _rowcount(result)


def _rowcount(result: object) -> int:
    return int(getattr(result, "rowcount", 0))

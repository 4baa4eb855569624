"""The outbox by name: enqueue, settle the study, retry (claims: delivery_claims.py).

Every function takes a session and leaves the commit to its caller.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Analysis, Delivery, Result, Study
from db.queries import studies
from db.states import OPEN_DELIVERIES, DeliveryState, StudyState


@dataclass(frozen=True)
class Target:
    """A destination as far as the record cares.

    Attributes:
        name: as in the configuration.
        kinds: object kinds it gets.
        shadow: record what would be sent, send nothing.
    """

    name: str
    kinds: Collection[str]
    shadow: bool


def enqueue(
    session: Session,
    analysis: Analysis,
    results: Sequence[Result],
    targets: Sequence[Target],
    now: dt.datetime,
) -> list[Delivery]:
    """Add a row per object and destination that wants it; what is there already is taken up again.

    Rows of earlier revisions that were not sent become SUPERSEDED. A dead row of this analysis
    becomes PENDING: the study was composed again because somebody asked for it.
    """
    supersede_older(session, analysis)
    rows = [
        _row(session, result, target.name, shadow=analysis.shadow or target.shadow, now=now)
        for target in targets
        for result in results
        if result.kind in target.kinds
    ]
    session.flush()
    return rows


def supersede_older(session: Session, analysis: Analysis) -> int:
    """Stop what earlier revisions of the study have not sent; returns how many rows."""
    older = sa.select(Analysis.id).where(
        Analysis.study_id == analysis.study_id, Analysis.revision < analysis.revision
    )
    unsent = (DeliveryState.PENDING, DeliveryState.DEAD)
    result = session.execute(
        sa.update(Delivery)
        .where(Delivery.analysis_id.in_(older), Delivery.state.in_(unsent))
        .values(state=DeliveryState.SUPERSEDED)
    )
    return _rowcount(result)


def locked_study(session: Session, study_id: int) -> Study:
    """The study, row-locked: whoever records a delivery holds it, so that the last one settles."""
    query = sa.select(Study).where(Study.id == study_id).with_for_update()
    return session.execute(query).scalar_one()


def settle(session: Session, study: Study, *, who: str, now: dt.datetime) -> None:
    """Move a delivering study on when no delivery of its current revision is open any more.

    All arrived (or in shadow mode, or there was nothing to send): DONE. Any dead: FAILED with the
    reason, from where a retry of the delivery or of the study takes it up again.
    """
    if study.state != StudyState.DELIVERING:
        return
    session.flush()
    rows = current(session, study)
    if any(row.state in OPEN_DELIVERIES for row in rows):
        return
    dead = [row for row in rows if row.state == DeliveryState.DEAD]
    if dead:
        first = dead[0]
        why = (
            f"{len(dead)} of {len(rows)} deliveries are dead; "
            f"{first.kind} to {first.destination}: {first.last_error}"
        )
        studies.move(session, study, StudyState.FAILED, who=who, why=why, now=now)
        return
    studies.move(session, study, StudyState.DONE, who=who, why=_summary(rows), now=now)
    study.done_at = now


def current(session: Session, study: Study) -> Sequence[Delivery]:
    """The deliveries of the study's current revision."""
    query = (
        sa.select(Delivery)
        .join(Analysis, Analysis.id == Delivery.analysis_id)
        .where(Delivery.study_id == study.id, Analysis.revision == study.revision)
        .order_by(Delivery.id)
    )
    return session.execute(query).scalars().all()


def revive(session: Session, row: Delivery, now: dt.datetime) -> None:
    """Make a dead or waiting row due now, its patience as if it were new."""
    row.state = DeliveryState.PENDING
    row.attempts = 0
    row.next_attempt_at = row.created_at = now
    row.lease_owner = row.lease_until = None
    row.sent_at = row.committed_at = row.seen_at = None
    row.proof_attempts = 0


def dead(session: Session, destination: str | None = None) -> Sequence[Delivery]:
    """Dead letters, oldest first."""
    query = sa.select(Delivery).where(Delivery.state == DeliveryState.DEAD).order_by(Delivery.id)
    if destination is not None:
        query = query.where(Delivery.destination == destination)
    return session.execute(query).scalars().all()


def _row(
    session: Session, result: Result, destination: str, *, shadow: bool, now: dt.datetime
) -> Delivery:
    query = sa.select(Delivery).where(
        Delivery.destination == destination, Delivery.subject == result.sop_uid
    )
    known = session.execute(query).scalar_one_or_none()
    if known is not None:
        if known.state == DeliveryState.DEAD:
            revive(session, known, now)
        return known
    row = Delivery(
        study_id=result.study_id,
        analysis_id=result.analysis_id,
        destination=destination,
        kind=result.kind,
        subject=result.sop_uid,
        result_id=result.id,
        state=DeliveryState.SHADOW if shadow else DeliveryState.PENDING,
        next_attempt_at=now,
        created_at=now,
    )
    session.add(row)
    return row


def _summary(rows: Sequence[Delivery]) -> str:
    if not rows:
        return "no destination wants a result"
    delivered = sum(row.state == DeliveryState.DELIVERED for row in rows)
    shadow = sum(row.state == DeliveryState.SHADOW for row in rows)
    if not delivered and shadow:
        return f"shadow mode: {shadow} results recorded, none pushed"
    return f"{delivered} results delivered" + (f", {shadow} in shadow mode" if shadow else "")


def _rowcount(result: object) -> int:
    return int(getattr(result, "rowcount", 0))

"""Numbers about the flow as a whole: queues, throughput, what failed, what waits."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session, defer

from db.models import Analysis, Delivery, Draft, Hl7Message, Study
from db.states import DeliveryState, StudyState


@dataclass(frozen=True)
class DestinationRow:
    """What is known of one destination from its deliveries."""

    by_state: dict[str, int]
    last_sent_at: dt.datetime | None
    last_error: str
    next_attempt_at: dt.datetime | None


def oldest_waiting(session: Session, states: Sequence[StudyState]) -> dict[str, dt.datetime]:
    """State -> when the last image came of the study that has been in it longest."""
    query = (
        sa.select(Study.state, sa.func.min(Study.last_instance_at))
        .where(Study.state.in_(states))
        .group_by(Study.state)
    )
    return {row[0]: row[1] for row in session.execute(query)}


def analyses_since(session: Session, since: dt.datetime) -> list[tuple[dt.datetime, float, str]]:
    """(when, seconds, status) of the analyses since a moment."""
    query = sa.select(Analysis.created_at, Analysis.seconds, Analysis.status).where(
        Analysis.created_at >= since
    )
    return [(row[0], row[1], row[2]) for row in session.execute(query)]


def newest_analysis(session: Session) -> Analysis | None:
    """The analysis made last."""
    query = sa.select(Analysis).order_by(Analysis.created_at.desc()).limit(1)
    return session.scalars(query.options(defer(Analysis.votes))).first()


def failed_studies(session: Session, limit: int) -> Sequence[Study]:
    """Studies that were given up, the latest first."""
    query = sa.select(Study).where(Study.state == StudyState.FAILED)
    return session.scalars(query.order_by(Study.last_instance_at.desc()).limit(limit)).all()


def dead_deliveries(session: Session, limit: int) -> Sequence[tuple[Delivery, str]]:
    """Deliveries that were given up, the latest first, each with the key of its study."""
    query = (
        sa.select(Delivery, Study.key)
        .join(Study, Study.id == Delivery.study_id)
        .where(Delivery.state == DeliveryState.DEAD)
        .order_by(Delivery.id.desc())
        .limit(limit)
    )
    return [(row[0], row[1]) for row in session.execute(query)]


def destination(session: Session, name: str, by_state: dict[str, int]) -> DestinationRow:
    """What the last deliveries to a destination say about it."""
    of_it = sa.select(Delivery).where(Delivery.destination == name)
    sent = session.scalars(
        of_it.where(Delivery.sent_at.is_not(None)).order_by(Delivery.id.desc()).limit(1)
    ).first()
    waiting = session.scalars(
        of_it.where(Delivery.state.in_((DeliveryState.PENDING, DeliveryState.DEAD)))
        .where(Delivery.last_error != "")
        .order_by(Delivery.id.desc())
        .limit(1)
    ).first()
    pending = waiting is not None and waiting.state == DeliveryState.PENDING
    return DestinationRow(
        by_state=by_state,
        last_sent_at=sent.sent_at if sent else None,
        last_error=waiting.last_error if waiting else "",
        next_attempt_at=waiting.next_attempt_at if waiting and pending else None,
    )


def drafts_by_state(session: Session) -> dict[str, int]:
    """State -> number of drafts."""
    query = sa.select(Draft.state, sa.func.count()).group_by(Draft.state)
    return {row[0]: row[1] for row in session.execute(query)}


def hl7_by_state(session: Session) -> dict[str, int]:
    """State -> number of HL7 messages kept."""
    query = sa.select(Hl7Message.state, sa.func.count()).group_by(Hl7Message.state)
    return {row[0]: row[1] for row in session.execute(query)}

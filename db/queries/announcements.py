"""Outbox rows of messages: one a study, destination and kind, the newest replaces what waits.

Every function takes a session and leaves the commit to its caller.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Analysis, Delivery, Draft, Study
from db.queries import outbox
from db.states import DeliveryState

#: What may still be replaced: nobody has it in hand.
_UNSENT = (DeliveryState.PENDING, DeliveryState.DEAD)
_TOLD = (DeliveryState.DELIVERED, DeliveryState.SENDING)


@dataclass(frozen=True)
class Message:
    """What is to be told, as far as the record cares.

    Attributes:
        kind: of the announcement.
        subject: its control id.
        identity: whose study it is now.
    """

    study_id: int
    analysis_id: str
    kind: str
    subject: str
    identity: str


def add(
    session: Session, message: Message, destination: str, now: dt.datetime, *, shadow: bool
) -> Delivery:
    """The row of a message; one that is there already is taken up again if it was dead."""
    known = session.execute(
        sa.select(Delivery).where(
            Delivery.destination == destination, Delivery.subject == message.subject
        )
    ).scalar_one_or_none()
    if known is not None:
        if known.state == DeliveryState.DEAD:
            outbox.revive(session, known, now)
        return known
    row = Delivery(
        study_id=message.study_id,
        analysis_id=message.analysis_id,
        destination=destination,
        kind=message.kind,
        subject=message.subject,
        identity=message.identity,
        state=DeliveryState.SHADOW if shadow else DeliveryState.PENDING,
        next_attempt_at=now,
        created_at=now,
    )
    session.add(row)
    return row


def supersede(session: Session, message: Message, destination: str) -> int:
    """Stop older messages of this kind about the study that nobody has sent; returns how many."""
    result = session.execute(
        sa.update(Delivery)
        .where(
            Delivery.study_id == message.study_id,
            Delivery.destination == destination,
            Delivery.kind == message.kind,
            Delivery.subject != message.subject,
            Delivery.state.in_(_UNSENT),
        )
        .values(state=DeliveryState.SUPERSEDED)
    )
    return int(getattr(result, "rowcount", 0))


def told_before(session: Session, study_id: int, destination: str, kind: str) -> bool:
    """Whether the destination heard (or is hearing) of this study before."""
    query = sa.select(Delivery.id).where(
        Delivery.study_id == study_id,
        Delivery.destination == destination,
        Delivery.kind == kind,
        Delivery.state.in_(_TOLD),
    )
    return session.execute(query.limit(1)).first() is not None


def current_analyses(session: Session, study: Study) -> Sequence[Analysis]:
    """The analyses of the study's newest analysed revision, oldest first."""
    newest = (
        sa.select(sa.func.max(Analysis.revision))
        .where(Analysis.study_id == study.id)
        .scalar_subquery()
    )
    query = (
        sa.select(Analysis)
        .where(Analysis.study_id == study.id, Analysis.revision == newest)
        .order_by(Analysis.created_at, Analysis.id)
    )
    return session.execute(query).scalars().all()


def current_draft(session: Session, study: Study) -> Draft | None:
    """The draft of the study's current revision, if one was made."""
    query = sa.select(Draft).where(Draft.study_id == study.id, Draft.revision == study.revision)
    return session.execute(query).scalar_one_or_none()

"""Messages of the RIS by name: recorded before they are acknowledged, found again by control id.

Every function takes a session and leaves the commit to its caller.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Hl7Message


class MessageState(enum.StrEnum):
    """The life of one message."""

    #: recorded, not acted upon yet
    RECEIVED = "received"
    #: its effect is in the record
    APPLIED = "applied"
    #: read, and nothing was to be done; the reason says why
    IGNORED = "ignored"
    #: cannot be used; a person has to look, and may put it back
    QUARANTINED = "quarantined"


def known(session: Session, sender: str, control_id: str, sha256: str) -> Hl7Message | None:
    """The same message, recorded before."""
    query = sa.select(Hl7Message).where(
        Hl7Message.sender == sender,
        Hl7Message.control_id == control_id,
        Hl7Message.sha256 == sha256,
    )
    return session.execute(query).scalar_one_or_none()


def locked(session: Session, message_id: int) -> Hl7Message | None:
    """The message, row-locked, so that it is acted upon once."""
    query = sa.select(Hl7Message).where(Hl7Message.id == message_id).with_for_update()
    return session.execute(query).scalar_one_or_none()


def waiting(session: Session) -> Sequence[int]:
    """Messages that were recorded and not acted upon, oldest first."""
    query = (
        sa.select(Hl7Message.id)
        .where(Hl7Message.state == MessageState.RECEIVED)
        .order_by(Hl7Message.id)
    )
    return session.execute(query).scalars().all()


def newest(session: Session, state: str | None, limit: int) -> Sequence[Hl7Message]:
    """Messages, newest first."""
    query = sa.select(Hl7Message).order_by(Hl7Message.id.desc()).limit(limit)
    if state:
        query = query.where(Hl7Message.state == state)
    return session.execute(query).scalars().all()


def forget(session: Session, before: dt.datetime) -> int:
    """Remove messages received before then, whatever became of them; returns how many."""
    result = session.execute(sa.delete(Hl7Message).where(Hl7Message.received_at < before))
    return int(getattr(result, "rowcount", 0))

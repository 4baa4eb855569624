"""Received messages for the operator: listed without content, put back after a correction."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from agent.errors import AgentError
from db.models import Hl7Message
from db.queries import hl7_messages as rows
from db.queries.hl7_messages import MessageState
from dicom_nodes.hl7 import charsets, messages
from dicom_nodes.hl7.errors import Hl7Error

ALL = 1_000_000


class UnknownMessage(AgentError):
    """No such message, or nothing about it to do."""

    permanent = True


def listing(session: Session, state: str | None, limit: int) -> list[dict[str, Any]]:
    """Messages, newest first; nothing of their content."""
    return [
        {
            "id": row.id,
            "received_at": row.received_at,
            "peer": row.peer,
            "type": row.message_type,
            "control_id": row.control_id,
            "state": row.state,
            "answer": row.acknowledgement,
            "reason": row.reason,
            "size_bytes": len(row.content),
        }
        for row in rows.newest(session, state, limit)
    ]


def content(session: Session, message_id: int) -> str:
    """One message as text, a segment a line; it names a patient.

    Raises:
        UnknownMessage: there is none.
    """
    row = _get(session, message_id)
    try:
        text = charsets.decode(row.content, messages.stated_charset(row.content), charsets.UTF8)
    except Hl7Error:
        text = row.content.decode("ascii", errors="backslashreplace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def requeue(session: Session, message_id: int | None) -> int:
    """Have a quarantined message (None = all of them) read again; returns how many.

    Raises:
        UnknownMessage: there is no such message, or it is not quarantined.
    """
    if message_id is None:
        found = list(rows.newest(session, MessageState.QUARANTINED, ALL))
    else:
        found = [_get(session, message_id)]
    for row in found:
        if row.state != MessageState.QUARANTINED:
            raise UnknownMessage(f"message {row.id} is {row.state}: nothing to read again")
        row.state, row.reason = MessageState.RECEIVED, ""
    return len(found)


def _get(session: Session, message_id: int) -> Hl7Message:
    row = session.get(Hl7Message, message_id)
    if row is None:
        raise UnknownMessage(f"no message {message_id}; see: worklist-agent hl7 messages")
    return row

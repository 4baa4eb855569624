"""What is written on a delivery row, and on the study's timeline, when its state changes.

Every function takes the session, the locked study and row, and now; the caller settles the study.
"""

from __future__ import annotations

import datetime as dt

from sqlalchemy.orm import Session

from agent.delivery.outbox import WHO
from db.models import Delivery, Study
from db.queries import studies
from db.states import DeliveryState


def sent(session: Session, study: Study, row: Delivery, now: dt.datetime) -> None:
    """The destination answered success; what it holds is looked at next."""
    row.state = DeliveryState.SENT
    row.sent_at = row.next_attempt_at = now
    row.committed_at = row.seen_at = None
    row.proof_attempts = 0
    row.last_error = ""
    _tell_sent(session, study, row, now)


def delivered(session: Session, study: Study, row: Delivery, now: dt.datetime) -> None:
    """The destination answered success, and no proof beyond that was asked for."""
    row.state = DeliveryState.DELIVERED
    row.sent_at = row.delivered_at = now
    row.last_error = ""
    _tell_sent(session, study, row, now)


def committed(session: Session, study: Study, row: Delivery, now: dt.datetime) -> None:
    """The destination committed itself to keep the object."""
    row.state = DeliveryState.COMMITTED
    row.committed_at = row.next_attempt_at = now
    row.proof_attempts = 0
    row.last_error = ""
    _note(session, study, row, now, "delivery_committed")


def arrived(session: Session, study: Study, row: Delivery, now: dt.datetime, *, seen: bool) -> None:
    """Everything that was asked for is proven."""
    row.state = DeliveryState.DELIVERED
    row.delivered_at = now
    row.last_error = ""
    if seen:
        row.seen_at = now
        _note(session, study, row, now, "delivery_seen")


def asked_again(row: Delivery, at: dt.datetime, why: str) -> None:
    """Not proven yet; the question is repeated."""
    row.proof_attempts += 1
    row.next_attempt_at = at
    row.last_error = why


def sent_again(
    session: Session, study: Study, row: Delivery, now: dt.datetime, *, at: dt.datetime, why: str
) -> None:
    """The destination does not hold what it took: back into the queue."""
    row.state = DeliveryState.PENDING
    row.next_attempt_at = at
    row.last_error = why
    _note(session, study, row, now, "delivery_missing", f"{why}; it is sent again")


def dead(session: Session, study: Study, row: Delivery, now: dt.datetime, *, why: str) -> None:
    """Given up: a person has to look."""
    row.state = DeliveryState.DEAD
    row.last_error = why
    _note(session, study, row, now, "delivery_dead", why)


def _tell_sent(session: Session, study: Study, row: Delivery, now: dt.datetime) -> None:
    tries = f" at attempt {row.attempts}" if row.attempts > 1 else ""
    why = f"{row.kind} to {row.destination}{tries}"
    studies.note(session, study.id, who=WHO, kind="delivery_sent", why=why, now=now)


def _note(
    session: Session, study: Study, row: Delivery, now: dt.datetime, kind: str, why: str = ""
) -> None:
    text = f"{row.kind} to {row.destination}" + (f": {why}" if why else "")
    studies.note(session, study.id, who=WHO, kind=kind, why=text, now=now)

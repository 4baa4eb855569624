"""Orders meet studies: priority, indication and location of the order become the study's.

Either may come first. Where an order names the study's accession number but another patient,
nothing is joined, and the timeline says so.
"""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent.orders import prioritizing
from agent.orders.prioritizing import WHO, Policy
from agent.orders.reading import OrderValues
from db.engine import reading
from db.models import Event, Order, Study
from db.queries import orders, outbox, studies

log = structlog.get_logger(__name__)

NOT_JOINED = "order_not_joined"
RECENT = dt.timedelta(hours=1)


def keep(
    session: Session, values: OrderValues, source: str, policy: Policy, now: dt.datetime
) -> Order:
    """Write an order down, newest word last, and join it to the studies it names."""
    row = orders.matching(session, values.patient.patient_id, values) or Order()
    _update(row, values, source, now)
    session.add(row)
    session.flush()
    for study in orders.studies_of(session, row):
        join(session, study, policy, now)
    return row


def join(session: Session, study: Study, policy: Policy, now: dt.datetime) -> bool:
    """Give the study what its order says; True when that changed something."""
    found = orders.candidates(session, study)
    order = next((o for o in found if orders.same_patient(o, study)), None)
    for other in found:
        if not orders.same_patient(other, study):
            _flag(session, study, other, now)
    if order is None or not _differs(order, study):
        return False
    study.ordered_priority = order.priority or study.ordered_priority
    study.patient_location = order.location or study.patient_location
    why = f"order {order.id}: " + ", ".join(_said(order))
    studies.note(session, study.id, who=WHO, kind="order_joined", why=why, now=now)
    occasion = f"order {order.id} {order.source}"
    moved = prioritizing.again(session, study, policy, now, occasion)
    log.info("order_joined", study=study.key, priority=study.priority or None, matches=moved)
    return True


def join_recent(sessions: sessionmaker[Session], policy: Policy, now: dt.datetime) -> int:
    """Join studies that came after their order; returns how many changed.

    Only studies with recent images: what came earlier was joined then, or with its order's message.
    """
    with reading(sessions) as session:
        found = orders.unjoined(session, now - RECENT)
    joined = 0
    for study_id in found:
        with sessions.begin() as session:
            joined += join(session, outbox.locked_study(session, study_id), policy, now)
    return joined


def _differs(order: Order, study: Study) -> bool:
    return bool(
        (order.priority and order.priority != study.ordered_priority)
        or (order.location and order.location != study.patient_location)
    )


def _said(order: Order) -> list[str]:
    said = [f"ordered as {order.priority}"] if order.priority else []
    said += ["location given"] if order.location else []
    said += ["indication given"] if order.indication else []
    return said


def _flag(session: Session, study: Study, order: Order, now: dt.datetime) -> None:
    why = f"order {order.id} names this study, but another patient; nothing of it is used"
    known = sa.select(Event.id).where(
        Event.study_id == study.id, Event.kind == NOT_JOINED, Event.why == why
    )
    if session.execute(known.limit(1)).first() is None:
        studies.note(session, study.id, who=WHO, kind=NOT_JOINED, why=why, now=now)
        log.warning(NOT_JOINED, study=study.key, why=why)


def _update(row: Order, values: OrderValues, source: str, now: dt.datetime) -> None:
    row.accession_number = values.accession_number
    row.patient_id = values.patient.patient_id
    row.issuer_of_patient_id = values.patient.issuer
    row.procedure_id = values.procedure_id
    for name in (
        "study_uid",
        "placer_order",
        "filler_order",
        "procedure_code",
        "indication",
        "priority",
        "location",
        "status",
    ):
        # an update says what changed; what it leaves out stays
        setattr(row, name, getattr(values, name) or getattr(row, name) or "")
    row.source, row.updated_at = source, now

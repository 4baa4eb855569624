"""Orders by name: of a study, of a patient, and the studies of an order.

Every function takes a session and leaves the commit to its caller.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Order, Study
from db.states import ReadingState

#: Order control codes (table 0119) after which an order asks for nothing.
CANCELLED = ("CA", "OC", "CR", "DC", "OD", "DR")
_OPEN = (ReadingState.UNREAD, ReadingState.READING)


class Named(Protocol):
    """What identifies an order besides its patient."""

    @property
    def accession_number(self) -> str:
        """May be empty."""

    @property
    def study_uid(self) -> str:
        """May be empty."""

    @property
    def procedure_id(self) -> str:
        """May be empty."""


def of_study(session: Session, study: Study) -> Order | None:
    """The newest order of the study: by study UID, or by accession number and patient."""
    return next((o for o in candidates(session, study) if same_patient(o, study)), None)


def candidates(session: Session, study: Study) -> Sequence[Order]:
    """Orders that name the study UID or the accession number, whoever the patient; UID first."""
    named = Order.study_uid == study.study_uid
    if study.accession_number:
        named = sa.or_(named, Order.accession_number == study.accession_number)
    query = (
        sa.select(Order)
        .where(named, Order.status.not_in(CANCELLED))
        .order_by(
            sa.case((Order.study_uid == study.study_uid, 0), else_=1),
            Order.updated_at.desc(),
            Order.id.desc(),
        )
    )
    return session.execute(query).scalars().all()


def matching(session: Session, patient_id: str, named: Named) -> Order | None:
    """The order that a message about it updates."""
    query = sa.select(Order).where(
        Order.patient_id == patient_id, Order.procedure_id == named.procedure_id
    )
    if named.accession_number:
        query = query.where(Order.accession_number == named.accession_number)
    else:
        query = query.where(Order.accession_number == "", Order.study_uid == named.study_uid)
    return session.execute(query.order_by(Order.id.desc()).limit(1)).scalar_one_or_none()


def studies_of(session: Session, order: Order) -> Sequence[Study]:
    """Studies that the order names, whoever the patient."""
    return studies_named(session, order.study_uid, order.accession_number)


def studies_named(session: Session, study_uid: str, accession_number: str) -> Sequence[Study]:
    """Studies with this UID or this accession number, row-locked; empty values name nobody."""
    named = []
    if study_uid:
        named.append(Study.study_uid == study_uid)
    if accession_number:
        named.append(Study.accession_number == accession_number)
    if not named:
        return []
    query = sa.select(Study).where(sa.or_(*named)).order_by(Study.id).with_for_update()
    return session.execute(query).scalars().all()


def studies_of_patient(session: Session, patient_id: str, issuer: str) -> Sequence[Study]:
    """Studies of a patient, row-locked."""
    query = sa.select(Study).where(Study.patient_id == patient_id).order_by(Study.id)
    found = session.execute(query.with_for_update()).scalars()
    return [study for study in found if is_patient(study, patient_id, issuer)]


def of_patient(session: Session, patient_id: str, issuer: str) -> Sequence[Order]:
    """Orders of a patient."""
    query = sa.select(Order).where(Order.patient_id == patient_id).order_by(Order.id)
    return [o for o in session.execute(query).scalars() if is_patient(o, patient_id, issuer)]


def same_patient(order: Order, study: Study) -> bool:
    """Whether order and study name one patient."""
    return is_patient(study, order.patient_id, order.issuer_of_patient_id)


def is_patient(row: Study | Order, patient_id: str, issuer: str) -> bool:
    """Whether a row is this patient's; an issuer counts where both sides state one."""
    if row.patient_id != patient_id:
        return False
    return len({row.issuer_of_patient_id, issuer} - {""}) <= 1


def unjoined(session: Session, since: dt.datetime) -> Sequence[int]:
    """Open studies with images since then that differ from what an order says of them."""
    differs = sa.or_(
        sa.and_(Order.priority != "", Order.priority != Study.ordered_priority),
        sa.and_(Order.location != "", Order.location != Study.patient_location),
    )
    query = (
        sa.select(Study.id)
        .where(
            Study.reading_state.in_(_OPEN),
            Study.last_instance_at >= since,
            _named(differs, Order.status.not_in(CANCELLED)),
        )
        .order_by(Study.id)
    )
    return session.execute(query).scalars().all()


def without_order(session: Session, since: dt.datetime) -> Sequence[Study]:
    """Open studies received since then that no order names."""
    query = (
        sa.select(Study)
        .where(Study.reading_state.in_(_OPEN), Study.first_instance_at >= since, ~_named())
        .order_by(Study.id)
    )
    return session.execute(query).scalars().all()


def _named(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """An order names the study; two questions, for one with OR inside would use no index."""
    by_uid = sa.exists().where(Order.study_uid == Study.study_uid, *conditions)
    by_accession = sa.exists().where(
        Order.accession_number == Study.accession_number, Study.accession_number != "", *conditions
    )
    return sa.or_(by_uid, by_accession)


def forget(session: Session, before: dt.datetime) -> int:
    """Remove orders that nobody spoke of since then; returns how many."""
    result = session.execute(sa.delete(Order).where(Order.updated_at < before))
    return int(getattr(result, "rowcount", 0))

"""Patients merged or renamed by the RIS: the record follows, and what was made before is not sent.

Result objects and messages that wait carry the identity they were made under. Their last look
(`agent.delivery.identity`) compares it with the record, and stops them as dead letters: a person
decides. Here the record is changed, and the timeline says why.
"""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from agent.orders.prioritizing import WHO
from agent.orders.reading import Demographics, Merge, PatientRef
from db.models import Delivery, Order, Study
from db.queries import orders, studies
from db.states import OPEN_DELIVERIES

log = structlog.get_logger(__name__)


def merge(session: Session, asked: Merge, now: dt.datetime) -> int:
    """Give the prior patient's studies and orders the surviving identity; returns how many rows.

    Repeatable: a prior patient without studies is nobody.
    """
    if asked.prior == asked.surviving:
        return 0
    found = orders.studies_of_patient(session, asked.prior.patient_id, asked.prior.issuer)
    for study in found:
        _rename(study, asked.surviving)
        waiting = _waiting(session, study)
        why = f"the RIS changed the patient's identity ({asked.event})"
        if waiting:
            why += f"; {waiting} deliveries made under the old one will not be sent"
            log.error("identity_changed", study=study.key, count=waiting, why=why)
        studies.note(session, study.id, who=WHO, kind="patient_merged", why=why, now=now)
    moved = _move_orders(session, asked)
    log.info("patient_merged", count=len(found), kind=asked.event)
    return len(found) + moved


def update(session: Session, said: Demographics, now: dt.datetime) -> int:
    """Correct name, birth date and sex where they differ; returns how many studies changed."""
    changed = 0
    for study in orders.studies_of_patient(session, said.patient.patient_id, said.patient.issuer):
        before = (study.patient_name, study.patient_birth_date, study.patient_sex)
        study.patient_name = said.name or study.patient_name
        study.patient_birth_date = said.birth_date or study.patient_birth_date
        study.patient_sex = said.sex or study.patient_sex
        if before != (study.patient_name, study.patient_birth_date, study.patient_sex):
            changed += 1
            why = "the RIS corrected name, birth date or sex (A08)"
            studies.note(session, study.id, who=WHO, kind="patient_updated", why=why, now=now)
    return changed


def _rename(study: Study, surviving: PatientRef) -> None:
    study.patient_id = surviving.patient_id
    if surviving.issuer:
        study.issuer_of_patient_id = surviving.issuer


def _waiting(session: Session, study: Study) -> int:
    query = sa.select(sa.func.count()).where(
        Delivery.study_id == study.id, Delivery.state.in_(OPEN_DELIVERIES)
    )
    return session.execute(query).scalar_one()


def _move_orders(session: Session, asked: Merge) -> int:
    found = orders.of_patient(session, asked.prior.patient_id, asked.prior.issuer)
    for order in found:
        issuer = asked.surviving.issuer or order.issuer_of_patient_id
        twin = sa.select(Order.id).where(
            Order.accession_number == order.accession_number,
            Order.procedure_id == order.procedure_id,
            Order.study_uid == order.study_uid,
            Order.patient_id == asked.surviving.patient_id,
            Order.issuer_of_patient_id == issuer,
        )
        if session.execute(twin).first() is not None:
            session.delete(order)
            continue
        order.patient_id, order.issuer_of_patient_id = asked.surviving.patient_id, issuer
    session.flush()
    return len(found)

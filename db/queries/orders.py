"""Orders by name: of a study, and the studies of an order.

Every function takes a session and leaves the commit to its caller.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Order, Study


def of_study(session: Session, study: Study) -> Order | None:
    """The newest order of the study: by study UID, or by accession number and patient."""
    return next((o for o in candidates(session, study) if same_patient(o, study)), None)


def candidates(session: Session, study: Study) -> Sequence[Order]:
    """Orders that name the study UID or the accession number, whoever the patient; UID first."""
    named = [Order.study_uid == study.study_uid]
    if study.accession_number:
        named.append(Order.accession_number == study.accession_number)
    query = (
        sa.select(Order)
        .where(sa.or_(*named))
        .order_by(
            sa.case((Order.study_uid == study.study_uid, 0), else_=1),
            Order.updated_at.desc(),
            Order.id.desc(),
        )
    )
    return session.execute(query).scalars().all()


def studies_of(session: Session, order: Order) -> Sequence[Study]:
    """Studies that the order names, whoever the patient."""
    named = []
    if order.study_uid:
        named.append(Study.study_uid == order.study_uid)
    if order.accession_number:
        named.append(Study.accession_number == order.accession_number)
    if not named:
        return []
    query = sa.select(Study).where(sa.or_(*named)).order_by(Study.id)
    return session.execute(query).scalars().all()


def same_patient(order: Order, study: Study) -> bool:
    """Whether order and study name one patient; an issuer counts where both sides state one."""
    if order.patient_id != study.patient_id:
        return False
    issuers = {order.issuer_of_patient_id, study.issuer_of_patient_id} - {""}
    return len(issuers) <= 1

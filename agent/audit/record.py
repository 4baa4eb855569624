"""One occurrence becomes a row of the audit trail, in the caller's transaction."""

from __future__ import annotations

import datetime as dt
import re

from sqlalchemy.orm import Session

from agent.audit.kinds import Occurrence
from db.models import AuditEvent
from db.queries import audit as queries

UID = re.compile(r"[0-9]+(\.[0-9]+)+")
UID_MAX = 64


def record(session: Session, occurrence: Occurrence, now: dt.datetime) -> AuditEvent:
    """Add the row; study and patient are looked up now, for the study may go later."""
    event = AuditEvent(
        at=now,
        kind=occurrence.kind,
        who=occurrence.who[:128],
        role=occurrence.role,
        address=occurrence.address[:64],
        detail=occurrence.detail,
        outcome=occurrence.outcome,
    )
    study = queries.study(session, occurrence.study) if occurrence.study else None
    if study:
        event.study_uid, event.study_key = study.study_uid, study.key
        event.patient_id = study.patient_id
    elif len(occurrence.study) <= UID_MAX and UID.fullmatch(occurrence.study):
        event.study_uid = occurrence.study
    session.add(event)
    return event

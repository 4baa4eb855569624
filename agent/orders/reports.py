"""Final reports of the RIS: kept beside what the models said, for evaluation."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent.orders.prioritizing import WHO
from agent.orders.reading import FinalReport
from agent.web import feedback
from db.models import ReadingFeedback, Study
from db.queries import orders, studies
from db.states import ReadingState

KIND = "report"


def keep(session: Session, said: FinalReport, now: dt.datetime, *, marks_read: bool) -> int:
    """Add the report to the studies it is about; returns how many there are here."""
    found = [
        study
        for study in orders.studies_named(session, said.study_uid, said.accession_number)
        if orders.is_patient(study, said.patient.patient_id, said.patient.issuer)
    ]
    for study in found:
        if not _known(session, study, said.text):
            row = ReadingFeedback(
                study_id=study.id, at=now, who=said.reader or "RIS", kind=KIND, text=said.text
            )
            session.add(row)
            why = "the final report came by HL7"
            studies.note(session, study.id, who=WHO, kind="report_received", why=why, now=now)
        if marks_read:
            feedback.set_reading_state(session, study, ReadingState.READ, who=WHO, now=now)
    return len(found)


def _known(session: Session, study: Study, text: str) -> bool:
    query = sa.select(ReadingFeedback.id).where(
        ReadingFeedback.study_id == study.id,
        ReadingFeedback.kind == KIND,
        ReadingFeedback.text == text,
    )
    return session.execute(query).first() is not None

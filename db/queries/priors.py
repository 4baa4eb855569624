"""Earlier studies of a patient that the same model has read."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Analysis, Study

READ = ("succeeded", "partial")


def newest(session: Session, study: Study, row: Analysis) -> tuple[Study, Analysis] | None:
    """The newest earlier study of the patient that the same version of a pack has read.

    Patients are the same when their id and its issuer are; a study without a date has no place in
    time. Only what was known when `row` was made counts, so that the answer stays what it was.
    """
    if not study.patient_id or not study.study_date:
        return None
    found = session.execute(
        sa.select(Study, Analysis)
        .join(Analysis, sa.and_(Analysis.study_id == Study.id, Analysis.revision == Study.revision))
        .where(
            Study.patient_id == study.patient_id,
            Study.issuer_of_patient_id == study.issuer_of_patient_id,
            Study.id != study.id,
            Study.study_date != "",
            sa.or_(
                Study.study_date < study.study_date,
                sa.and_(Study.study_date == study.study_date, Study.study_time < study.study_time),
            ),
            Analysis.pack_digest == row.pack_digest,
            Analysis.status.in_(READ),
            Analysis.provisional.is_(False),
            Analysis.created_at < row.created_at,
        )
        .order_by(Study.study_date.desc(), Study.study_time.desc(), Analysis.created_at.desc())
        .limit(1)
    ).first()
    return None if found is None else (found[0], found[1])

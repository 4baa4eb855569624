"""What the order and the headers say about an examination, for those who draft its report."""

from __future__ import annotations

from collections.abc import Sequence

import pydicom
from pydicom.errors import InvalidDicomError
from sqlalchemy.orm import Session

from agent import facts
from db.models import Study
from db.queries import orders
from inference.findings import SeriesReport
from inference.report.draft import ClinicalContext
from inference.study import StudyInput

SEXES = ("M", "F", "O")


def context(
    session: Session, study: Study, given: StudyInput, read: Sequence[SeriesReport]
) -> ClinicalContext:
    """The context of a study; holds no identifier, and says nothing that nobody said.

    Args:
        session: to ask for the order.
        study: its row.
        given: its image series as files.
        read: what became of each series.
    """
    order = orders.of_study(session, study)
    used = {report.series_uid for report in read if report.used}
    return ClinicalContext(
        modality=given.modality,
        indication=order.indication if order else "",
        age_years=facts.age_years(study.patient_birth_date, study.study_date),
        sex=study.patient_sex if study.patient_sex in SEXES else "",
        body_part=study.body_part,
        series=tuple(s.description for s in given.series if s.series_uid in used),
        contrast=_contrast(given),
    )


def _contrast(given: StudyInput) -> bool | None:
    """Whether a header names a contrast agent; that none does says nothing."""
    for series in given.series:
        for path in series.files[:1]:
            try:
                ds = pydicom.dcmread(
                    path, stop_before_pixels=True, specific_tags=["ContrastBolusAgent"]
                )
            except (InvalidDicomError, OSError):
                continue
            if ds.get("ContrastBolusAgent"):
                return True
    return None

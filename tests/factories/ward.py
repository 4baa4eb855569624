"""A busy morning: a seeded database with studies in every situation, real images behind some."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from factories import dicom, rows
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session, sessionmaker

from db.models import Study
from db.states import DeliveryState, ReadingState, StudyState
from inference.findings import Acuity, Finding, Findings, Grounding, Status

Place = tuple[float, float, float]


def fill(sessions: sessionmaker[Session], spool: Path, now: dt.datetime = rows.NOW) -> None:
    """Write a dozen studies and the images of those with a localized finding below `spool`."""
    with sessions.begin() as session:
        _stat(session, spool, now)
        _others(session, spool, now)
        _not_analysed(session, now)


def _stat(session: Session, spool: Path, now: dt.datetime) -> None:
    bleed = _study(
        session,
        now,
        4,
        "STAT",
        "Intraparenchymal hemorrhage 97% (urgent)",
        patient_name="Lindqvist^Maja",
        patient_birth_date="19520307",
        patient_sex="F",
        description="CT HEAD WITHOUT CONTRAST",
        patient_location="ED bay 4",
    )
    slices = images(session, spool, bleed, "CT", (28, -18, 12))
    said = _analysed(
        session,
        bleed,
        seen(slices, (28, -18, 12), "intraparenchymal_hemorrhage", 0.97),
        rows.finding("midline_shift", 0.71, acuity=Acuity.URGENT),
        rows.finding("subdural_hemorrhage", 0.08),
        rows.finding("atrophy", 0.03, acuity=Acuity.ROUTINE),
    )
    result = rows.result(session, said)
    rows.delivery(session, result)
    rows.event(session, bleed, at=rows.minutes_ago(3.5, now))
    rows.event(
        session,
        bleed,
        who="worker-1",
        kind="priority_set",
        to_state="STAT",
        from_state="",
        why="Intraparenchymal hemorrhage 97% (urgent)",
        at=rows.minutes_ago(3, now),
    )

    infarct = _study(
        session,
        now,
        14,
        "STAT",
        "Acute infarct 88% (urgent)",
        modalities="MR",
        patient_name="Okafor^Chidi^B",
        description="MR BRAIN STROKE PROTOCOL",
        patient_sex="M",
        patient_location="Stroke unit",
        state=StudyState.DELIVERING,
    )
    slices = images(session, spool, infarct, "MR", (-30, 10, -6))
    said = _analysed(session, infarct, seen(slices, (-30, 10, -6), "acute_infarct", 0.88))
    dead = rows.result(session, said)
    rows.delivery(
        session,
        dead,
        state=DeliveryState.DEAD,
        attempts=9,
        destination="archive",
        last_error="archive:104: connection refused; is the PACS running?",
    )


def _others(session: Session, spool: Path, now: dt.datetime) -> None:
    doubtful = _study(
        session,
        now,
        22,
        "HIGH",
        "Subdural hemorrhage 56% (urgent)",
        patient_name="García López^Inés",
        patient_sex="F",
        patient_location="Ward 3B",
        reading_state=ReadingState.READING,
    )
    slices = images(session, spool, doubtful, "CT", (-45, -30, 20))
    _analysed(
        session,
        doubtful,
        seen(slices, (-45, -30, 20), "subdural_hemorrhage", 0.56),
        rows.finding("atrophy", 0.77, acuity=Acuity.ROUTINE),
    )
    mass = _study(
        session,
        now,
        55,
        "MEDIUM",
        "Mass with edema 83% (routine)",
        modalities="MR",
        patient_name="Novák^Jiří",
        description="MR BRAIN WITH AND WITHOUT CONTRAST",
        ordered_priority="ROUTINE",
        state=StudyState.COMPOSING,
    )
    slices = images(session, spool, mass, "MR", (20, 25, 18))
    _analysed(
        session,
        mass,
        seen(slices, (20, 25, 18), "mass_with_edema", 0.83, acuity=Acuity.ROUTINE),
    )
    late = _study(
        session,
        now,
        1460,
        "LOW",
        "no finding above its threshold",
        patient_name="Abe^Kenji",
        ordered_priority="ROUTINE",
    )
    _analysed(session, late, rows.finding(probability=0.04))
    normal = _study(
        session,
        now,
        35,
        "LOW",
        "no finding above its threshold",
        patient_name="Smith^Ada",
        modalities="MR",
        description="MR BRAIN WITHOUT CONTRAST",
    )
    said = _analysed(session, normal, rows.finding(probability=0.02))
    rows.delivery(session, rows.result(session, said))
    shadow = _study(
        session,
        now,
        9,
        "",
        "",
        patient_name="Meyer^Jürgen",
        ordered_priority="ROUTINE",
    )
    said = _analysed(session, shadow, rows.finding("epidural_hemorrhage", 0.91), shadow=True)
    rows.delivery(session, rows.result(session, said), state=DeliveryState.SHADOW, attempts=0)


def _not_analysed(session: Session, now: dt.datetime) -> None:
    running = _study(
        session,
        now,
        1,
        "",
        "",
        state=StudyState.ANALYSING,
        patient_name="Kowalska^Anna",
        patient_location="ED bay 1",
        ordered_priority="STAT",
    )
    rows.series(session, running)
    _study(
        session,
        now,
        0.4,
        "",
        "",
        state=StudyState.RECEIVING,
        revision=0,
        patient_name="Haddad^Samir",
        instance_count=112,
    )
    _study(
        session,
        now,
        70,
        "",
        "",
        state=StudyState.SKIPPED,
        patient_name="Rossi^Luca",
        description="CT SINUSES",
        reason="not a brain study: no routing rule matches this study",
    )
    failed = _study(
        session,
        now,
        44,
        "MEDIUM",
        "not analysed: says nothing about urgency",
        state=StudyState.FAILED,
        patient_name="Dubois^Élise",
        reason="slices 12 to 19 are missing; send the series again",
    )
    _analysed(
        session,
        failed,
        status=Status.FAILED,
        reason="slices 12 to 19 are missing; send the series again",
    )
    rows.feedback(session, failed, kind="acknowledged")


def _study(
    session: Session, now: dt.datetime, minutes: float, level: str, why: str, **values: object
) -> Study:
    number = session.query(Study).count() + 1
    return rows.study(
        session,
        **{
            "number": number,
            "study_uid": dicom.uid("ward", number),
            "priority": level,
            "priority_reason": why,
            "first_instance_at": rows.minutes_ago(minutes, now),
            "last_instance_at": rows.minutes_ago(minutes * 0.8, now),
            **values,
        },
    )


def _analysed(
    session: Session,
    study: Study,
    *found: Finding,
    status: Status = Status.SUCCEEDED,
    reason: str = "",
    shadow: bool = False,
) -> object:
    said = Findings(
        study_uid=study.study_uid,
        status=status,
        pack=rows.PACK,
        findings=found,
        reason=reason,
        device="cpu",
    )
    return rows.analysis(session, study, said, shadow=shadow)


def images(
    session: Session, spool: Path, study: Study, modality: str, lesion: Place
) -> Sequence[Dataset]:
    """Write a head with a bright ball at `lesion` (LPS, mm) to the spool, with its rows."""
    base, value = (dicom.head, 72.0) if modality == "CT" else (dicom.mr_head, 750.0)
    slices = dicom.series(
        modality,
        28,
        128,
        128,
        spacing=(5.0, 1.7, 1.7),
        study_uid=study.study_uid,
        pixels=dicom.ball(lesion, 14, value, base),
        patient=str(study.id),
    )
    row = rows.series(
        session,
        study,
        series_uid=str(slices[0].SeriesInstanceUID),
        modality=modality,
        description=str(slices[0].SeriesDescription),
    )
    for path, image in zip(dicom.save_all(slices, spool / study.key), slices, strict=True):
        rows.instance(
            session,
            row,
            sop_uid=str(image.SOPInstanceUID),
            path=str(path.relative_to(spool)),
        )
    return slices


def seen(
    slices: Sequence[Dataset],
    lesion: Place,
    label: str,
    probability: float,
    acuity: Acuity = Acuity.URGENT,
) -> Finding:
    """A finding whose saliency is a blob of 12 mm sigma at the lesion, on 16 mm tokens."""
    grid = np.diag([16.0, 16.0, 16.0, 1.0])[[2, 1, 0, 3]]  # (d, h, w) counts (z, y, x)
    grid[:3, 3] = [-96, -96, -72]
    index = np.stack(np.meshgrid(*map(np.arange, (10, 13, 13)), indexing="ij"), axis=-1)
    points = index @ grid[:3, :3].T + grid[:3, 3]
    saliency = np.exp(-((np.linalg.norm(points - np.array(lesion), axis=-1) / 15) ** 2) / 2)
    key = min(slices, key=lambda ds: abs(float(ds.ImagePositionPatient[2]) - lesion[2]))
    seen = Grounding(
        series_uid=str(key.SeriesInstanceUID),
        saliency=(saliency / saliency.max()).astype(np.float32),
        grid_to_patient=grid,
        threshold=0.5,
        key_sop_uid=str(key.SOPInstanceUID),
    )
    return rows.finding(label, probability, acuity=acuity, grounding=seen)

"""A study whose results wait in the outbox, with real files, and a channel that obeys."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factories import dicom, rows
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SegmentationStorage,
)
from sqlalchemy.orm import Session

from agent.delivery import outbox
from agent.settings import Destination
from db.models import Analysis, Result, Study
from db.states import StudyState
from dicom_nodes.answers import HeldStudy

CLASSES = {
    "sr": Comprehensive3DSRStorage,
    "seg": SegmentationStorage,
    "pm": ParametricMapStorage,
    "sc": MultiFrameTrueColorSecondaryCaptureImageStorage,
}
ALL = ("sr", "seg", "pm", "sc")


class Clock:
    """A time that moves when told."""

    def __init__(self, now: dt.datetime = rows.NOW) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        """Now."""
        return self.now

    def forward(self, **delta: float) -> None:
        """Let time pass, e.g. ``forward(seconds=5)``."""
        self.now += dt.timedelta(**delta)


@dataclass
class FakeChannel:
    """Keeps what it is sent by SOP Instance UID; both answers are functions.

    Attributes:
        on_send: called with each dataset before it is kept; raise to refuse.
        on_held: what to say about a study.
        sent: SOP Instance UIDs in order of arrival, repeats included.
        kept: SOP Instance UID -> file content: the archive's side of exactly-once.
    """

    on_send: Callable[[Dataset], None] = lambda _ds: None
    on_held: Callable[[str], HeldStudy | None] = lambda _uid: None
    sent: list[str] = field(default_factory=list)
    kept: dict[str, bytes] = field(default_factory=dict)

    def send(self, path: Path) -> None:
        """Take a file."""
        ds = dcmread(path)
        self.on_send(ds)
        self.sent.append(str(ds.SOPInstanceUID))
        self.kept.setdefault(str(ds.SOPInstanceUID), path.read_bytes())

    def held_study(self, study_uid: str) -> HeldStudy | None:
        """Answer as told."""
        return self.on_held(study_uid)

    def count_instances(self, study_uid: str, exclude_series: Collection[str] = ()) -> int | None:
        """Count nothing."""

    def check(self) -> None:
        """Always there."""


def refusing(sop_class: str, error: Exception) -> Callable[[Dataset], None]:
    """An `on_send` that raises for one SOP class and takes all others."""

    def on_send(ds: Dataset) -> None:
        if ds.SOPClassUID == sop_class:
            raise error

    return on_send


def destination(name: str = "pacs", **values: Any) -> Destination:
    """A DICOM destination that pushing is switched on for."""
    return Destination(
        **{"name": name, "kind": "dicom", "ae_title": "PACS", "shadow": False, **values}
    )


def composed(
    session: Session,
    results_dir: Path,
    kinds: Sequence[str] = ("sr", "seg"),
    *,
    study: Study | None = None,
    **study_values: Any,
) -> tuple[Study, Analysis, list[Result]]:
    """A delivering study with an analysis and one result file per kind, nothing enqueued yet."""
    study = study or rows.study(session, **{"state": StudyState.DELIVERING, **study_values})
    analysis = rows.analysis(session, study)
    results = [_result(session, study, analysis, kind, results_dir) for kind in kinds]
    return study, analysis, results


def enqueued(
    session: Session,
    results_dir: Path,
    kinds: Sequence[str] = ("sr", "seg"),
    *,
    destinations: Sequence[Destination] | None = None,
    now: dt.datetime = rows.NOW,
    **values: Any,
) -> Study:
    """As `composed`, with its rows in the outbox."""
    study, analysis, results = composed(session, results_dir, kinds, **values)
    wanted = destinations or [destination()]
    outbox.enqueue(session, study, analysis, results, wanted, now, shadow=analysis.shadow)
    return study


def _result(
    session: Session, study: Study, analysis: Analysis, kind: str, results_dir: Path
) -> Result:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = CLASSES[kind]
    ds.SOPInstanceUID = dicom.uid(analysis.id, kind)
    ds.StudyInstanceUID = study.study_uid
    ds.SeriesInstanceUID = dicom.uid(analysis.id, kind, "series")
    ds.Modality = {"sr": "SR", "seg": "SEG", "pm": "OT", "sc": "OT"}[kind]
    ds.PatientID, ds.IssuerOfPatientID = study.patient_id, study.issuer_of_patient_id
    ds.PatientName, ds.PatientBirthDate, ds.PatientSex = study.patient_name, "19600101", "O"
    ds.AccessionNumber, ds.StudyID = study.accession_number, "1"
    ds.StudyDate, ds.StudyTime = study.study_date, study.study_time
    ds.SeriesNumber, ds.InstanceNumber = 9000 + len(kind), 1
    ds.SeriesDescription = "RESEARCH USE ONLY"
    ds.file_meta = dicom.new_meta(ds.SOPClassUID, ds.SOPInstanceUID)
    path = dicom.save(ds, results_dir / analysis.id / f"{kind}.dcm")
    return rows.result(
        session,
        analysis,
        kind=kind,
        sop_class_uid=ds.SOPClassUID,
        sop_uid=ds.SOPInstanceUID,
        series_uid=ds.SeriesInstanceUID,
        path=str(path.relative_to(results_dir)),
        size_bytes=path.stat().st_size,
    )

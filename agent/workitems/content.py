"""The attributes of a reading task (PS3.4 table CC.2.5-3), made of the study's rows."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.dataset import Dataset

from agent.delivery.announcements import CAUTION
from agent.settings import Level
from db.models import Order, Study, Workitem
from db.states import StudyState
from dicom_nodes import ups

#: Level -> Scheduled Procedure Step Priority (0074,1200), which knows three.
PRIORITIES = {
    Level.STAT: "HIGH",
    Level.HIGH: "HIGH",
    Level.MEDIUM: "MEDIUM",
    Level.LOW: "LOW",
}
#: The other way round, for workitems of others.
LEVELS = {"HIGH": Level.HIGH, "MEDIUM": Level.MEDIUM, "LOW": Level.LOW}
_LO, _SH, _LT = 64, 16, 10_000


@dataclass(frozen=True)
class Reading:
    """A reading task, as it goes into a dataset; empty when unknown."""

    uid: str
    level: Level
    reason: str
    study_uid: str
    patient_id: str
    issuer: str
    patient_name: str
    birth_date: str
    sex: str
    accession: str
    description: str
    starts: dt.datetime
    label: str = "READING"
    ready: bool = True
    placer_order: str = ""
    filler_order: str = ""
    procedure_id: str = ""
    indication: str = ""


def uid_of(study_uid: str, part: str = "") -> str:
    """The UID of a study's reading task: always the same (PS3.5 B.2, derived from a digest)."""
    digest = hashlib.sha256(f"reading task\n{study_uid}\n{part}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def of_study(
    study: Study, order: Order | None, level: Level, uid: str, label: str = "READING"
) -> Reading:
    """The reading task of a study as its rows are now."""
    return Reading(
        uid=uid,
        level=level,
        reason=study.priority_reason or "ordered priority",
        study_uid=study.study_uid,
        patient_id=study.patient_id,
        issuer=study.issuer_of_patient_id,
        patient_name=study.patient_name,
        birth_date=study.patient_birth_date,
        sex=study.patient_sex,
        accession=study.accession_number,
        description=study.description,
        starts=study.first_instance_at,
        label=label,
        ready=study.state != StudyState.RECEIVING,
        placer_order=order.placer_order if order else "",
        filler_order=order.filler_order if order else "",
        procedure_id=order.procedure_id if order else "",
        indication=order.indication if order else "",
    )


def dataset(task: Reading, now: dt.datetime) -> Dataset:
    """The task's attributes, without state, inputs and what the performer adds."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = ups.PUSH
    ds.SOPInstanceUID = task.uid
    ds.ScheduledProcedureStepPriority = PRIORITIES[task.level]
    ds.ScheduledProcedureStepModificationDateTime = moment(now)
    ds.ProcedureStepLabel = f"Read {task.description}".strip()[:_LO]
    ds.WorklistLabel = task.label[:_LO]
    ds.ScheduledProcedureStepStartDateTime = moment(task.starts)
    ds.InputReadinessState = "READY" if task.ready else "INCOMPLETE"
    ds.ScheduledWorkitemCodeSequence = [interpretation()]
    for keyword in (
        "ScheduledProcessingParametersSequence",
        "ScheduledStationNameCodeSequence",
        "ScheduledStationClassCodeSequence",
        "ScheduledStationGeographicLocationCodeSequence",
    ):
        setattr(ds, keyword, [])
    ds.CommentsOnTheScheduledProcedureStep = f"{task.level}: {task.reason}. {CAUTION}"[:_LT]
    ds.PatientName, ds.PatientID = task.patient_name, task.patient_id
    ds.IssuerOfPatientID = task.issuer
    ds.PatientBirthDate, ds.PatientSex = task.birth_date, task.sex
    ds.AdmissionID = ""
    ds.StudyInstanceUID = task.study_uid
    ds.ReferencedRequestSequence = [_request(task)]
    return ds


def interpretation() -> Dataset:
    """(110005, DCM, "Interpretation"), of CID 9231."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "110005", "DCM"
    code.CodeMeaning = "Interpretation"
    return code


def new(ds: Dataset) -> Dataset:
    """The dataset as it is created: scheduled, not locked, nothing performed."""
    ds.TransactionUID = ""
    ds.ProcedureStepState = ups.State.SCHEDULED.value
    ds.InputInformationSequence = []
    ds.ProcedureStepProgressInformationSequence = []
    ds.UnifiedProcedureStepPerformedProcedureSequence = []
    return ds


def inputs(instances: Iterable[tuple[str, str, str]], study_uid: str, ae: str) -> list[Dataset]:
    """Input Information Sequence: the images, an item a series."""
    by_series: dict[str, list[Dataset]] = {}
    for series_uid, sop_class, sop_uid in instances:
        reference = Dataset()
        reference.ReferencedSOPClassUID = sop_class
        reference.ReferencedSOPInstanceUID = sop_uid
        by_series.setdefault(series_uid, []).append(reference)
    items = []
    for series_uid, references in by_series.items():
        item = Dataset()
        item.TypeOfInstances = "DICOM"
        item.StudyInstanceUID, item.SeriesInstanceUID = study_uid, series_uid
        item.ReferencedSOPSequence = references
        if ae:
            where = Dataset()
            where.RetrieveAETitle = ae
            item.DICOMRetrievalSequence = [where]
        items.append(item)
    return items


def read(row: Workitem) -> Dataset:
    """A workitem's attributes: the columns win; the Transaction UID is never told."""
    ds = Dataset.from_json(row.content)
    ds.pop("TransactionUID", None)
    ds.SOPClassUID, ds.SOPInstanceUID = ups.PUSH, row.uid
    ds.ProcedureStepState = row.state
    return ds


def write(row: Workitem, ds: Dataset) -> None:
    """Keep attributes, and what is searched by in columns."""
    ds.pop("TransactionUID", None)
    row.content = ds.to_json()
    row.priority = str(ds.get("ScheduledProcedureStepPriority") or "")
    row.patient_id = str(ds.get("PatientID") or "")
    requests = ds.get("ReferencedRequestSequence") or []
    row.accession_number = str(requests[0].get("AccessionNumber") or "") if requests else ""


def moment(at: dt.datetime) -> str:
    """A DT in UTC."""
    return at.astimezone(dt.UTC).strftime("%Y%m%d%H%M%S+0000")


def _request(task: Reading) -> Dataset:
    request = Dataset()
    request.StudyInstanceUID = task.study_uid
    request.AccessionNumber = task.accession
    request.IssuerOfAccessionNumberSequence = []
    request.PlacerOrderNumberImagingServiceRequest = task.placer_order
    request.FillerOrderNumberImagingServiceRequest = task.filler_order
    request.OrderPlacerIdentifierSequence = []
    request.OrderFillerIdentifierSequence = []
    request.RequestedProcedureID = task.procedure_id[:_SH]
    request.RequestedProcedureDescription = task.description[:_LO]
    request.RequestedProcedureCodeSequence = []
    request.ReasonForTheRequestedProcedure = task.indication[:_LO]
    request.RequestingService = ""
    return request

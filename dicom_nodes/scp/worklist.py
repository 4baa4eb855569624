"""Modality Worklist C-FIND SCP (PS3.4 annex K): answers from items it is given, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]

from dicom_nodes.scp import matching

# PS3.4 table K.4-1 (C-FIND response status for the worklist)
MATCH = 0xFF00
#: "matches are continuing - one or more optional keys were not supported"
MATCH_UNSUPPORTED_KEYS = 0xFF01
CANCELLED = 0xFE00
IDENTIFIER_MISMATCH = 0xA900
UNABLE_TO_PROCESS = 0xC001

CHARACTER_SET = "ISO_IR 192"
SHORT_STRING = 16
LONG_STRING = 64

log = structlog.get_logger(__name__)

Answer = tuple[int | Dataset, Dataset | None]
"""Status (a dataset where a comment goes with it) and identifier, as pynetdicom takes them."""


@dataclass(frozen=True)
class WorklistItem:
    """One line of the worklist, values as they go on the wire; empty when unknown.

    Attributes:
        priority: Requested Procedure Priority (0040,1003): STAT, HIGH, ROUTINE, MEDIUM or LOW.
        step_description: what the reader is told, e.g. the finding.
    """

    study_uid: str
    procedure_id: str
    priority: str
    modality: str
    patient_name: str = ""
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    birth_date: str = ""
    sex: str = ""
    accession_number: str = ""
    procedure_description: str = ""
    location: str = ""
    station_ae: str = ""
    station_name: str = ""
    start_date: str = ""
    start_time: str = ""
    step_description: str = ""
    step_id: str = ""


@dataclass(frozen=True)
class WorklistQuery:
    """What was asked: the C-FIND identifier, and by whom."""

    keys: Dataset
    calling_ae: str


Items = Callable[[WorklistQuery], Iterable[WorklistItem]]


def contexts() -> list[PresentationContext]:
    """The presentation contexts of the service."""
    return [build_context(ModalityWorklistInformationFind)]


def make_find_handler(items: Items) -> Callable[[Any], Iterator[Answer]]:
    """The handler of pynetdicom's EVT_C_FIND.

    Args:
        items: the whole worklist in reading order; it may narrow it down by the query, but need
            not: every item is matched here.
    """

    def handle_find(event: Any) -> Iterator[Answer]:
        if event.context.abstract_syntax != ModalityWorklistInformationFind:
            yield IDENTIFIER_MISMATCH, None
            return
        try:
            yield from _answers(event, items)
        except matching.MatchingError as error:
            log.warning("worklist_query_refused", why=str(error))
            yield _failure(IDENTIFIER_MISMATCH, str(error)), None
        except Exception as error:  # noqa: BLE001 - the edge: pynetdicom would print the identifier
            log.error("worklist_query_failed", error_type=type(error).__name__)
            yield _failure(UNABLE_TO_PROCESS, "the worklist cannot be read; see the log"), None

    return handle_find


def to_dataset(item: WorklistItem) -> Dataset:
    """The item with every return key that is supported (PS3.4 table K.6-1)."""
    step = Dataset()
    step.Modality = item.modality
    step.ScheduledStationAETitle = item.station_ae
    step.ScheduledProcedureStepStartDate = item.start_date
    step.ScheduledProcedureStepStartTime = item.start_time
    step.ScheduledProcedureStepDescription = item.step_description[:LONG_STRING]
    step.ScheduledProcedureStepID = item.step_id[:SHORT_STRING]
    step.ScheduledStationName = item.station_name[:SHORT_STRING]
    step.ScheduledPerformingPhysicianName = ""
    ds = Dataset()
    ds.SpecificCharacterSet = CHARACTER_SET
    ds.AccessionNumber = item.accession_number
    ds.ReferringPhysicianName = ""
    ds.PatientName = item.patient_name
    ds.PatientID = item.patient_id
    ds.IssuerOfPatientID = item.issuer_of_patient_id
    ds.PatientBirthDate = item.birth_date
    ds.PatientSex = item.sex
    ds.StudyInstanceUID = item.study_uid
    ds.RequestedProcedureDescription = item.procedure_description[:LONG_STRING]
    ds.CurrentPatientLocation = item.location
    ds.RequestedProcedureID = item.procedure_id[:SHORT_STRING]
    ds.RequestedProcedurePriority = item.priority
    ds.ScheduledProcedureStepSequence = [step]
    return ds


def _answers(event: Any, items: Items) -> Iterator[Answer]:
    keys = event.identifier
    query = WorklistQuery(keys=keys, calling_ae=str(event.assoc.requestor.ae_title).strip())
    number = 0
    for item in items(query):
        if event.is_cancelled:
            log.info("worklist_query_cancelled", matches=number)
            yield CANCELLED, None
            return
        candidate = to_dataset(item)
        if matching.matches(keys, candidate):
            number += 1
            answer = matching.returned(keys, candidate)
            answer.SpecificCharacterSet = CHARACTER_SET
            yield MATCH if _supported(keys, candidate) else MATCH_UNSUPPORTED_KEYS, answer
    log.info("worklist_queried", matches=number, peer=query.calling_ae)


def _supported(keys: Dataset, candidate: Dataset) -> bool:
    for key in keys:
        if key.tag in matching.NOT_KEYS or key.tag.is_private_creator:
            continue
        if key.tag not in candidate:
            return False
        if key.VR == "SQ" and not all(
            _supported(inner, candidate[key.tag].value[0]) for inner in key.value
        ):
            return False
    return True


def _failure(status: int, why: str) -> Dataset:
    """A status with its Error Comment (0000,0902)."""
    ds = Dataset()
    ds.Status = status
    ds.ErrorComment = why[:LONG_STRING]
    return ds

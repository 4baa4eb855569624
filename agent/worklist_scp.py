"""The reading worklist over DICOM: entries → modality worklist items, in the order of the page."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pynetdicom import evt
from pynetdicom.presentation import PresentationContext
from sqlalchemy.orm import Session, sessionmaker

from agent import worklist
from agent.settings import Level, PrioritySettings
from agent.worklist import WorklistEntry
from db.engine import reading
from dicom_nodes.scp.worklist import (
    Items,
    WorklistItem,
    WorklistQuery,
    contexts,
    make_find_handler,
)

CHUNK = 200
IMAGING = ("CT", "MR")

#: Level -> Requested Procedure Priority (0040,1003). LOW is sent as ROUTINE: an order without
#: urgency says ROUTINE, and nothing may come back lower than it was ordered.
PRIORITIES = {
    Level.STAT: "STAT",
    Level.HIGH: "HIGH",
    Level.MEDIUM: "MEDIUM",
    Level.LOW: "ROUTINE",
}


@dataclass(frozen=True)
class Service:
    """What the storage server must host to answer worklist queries on its port."""

    contexts: tuple[PresentationContext, ...]
    evt_handlers: tuple[tuple[Any, Callable[..., Any]], ...]


def service(
    sessions: sessionmaker[Session],
    priority: PrioritySettings,
    clock: Callable[[], dt.datetime],
) -> Service:
    """The worklist service over this database."""
    handler = make_find_handler(items(sessions, priority, clock))
    return Service(contexts=tuple(contexts()), evt_handlers=((evt.EVT_C_FIND, handler),))


def items(
    sessions: sessionmaker[Session],
    priority: PrioritySettings,
    clock: Callable[[], dt.datetime],
) -> Items:
    """Every study that is not read yet, in reading order, at one moment."""

    def every(query: WorklistQuery) -> Iterator[WorklistItem]:
        now = clock()
        with reading(sessions) as session:
            for entry in worklist.open_entries(session, priority, now, CHUNK):
                yield to_item(entry)

    return every


def to_item(entry: WorklistEntry) -> WorklistItem:
    """One entry as a worklist item."""
    study, patient = entry.study, entry.patient
    ordered_low = study.ordered_priority.upper() == "LOW" and entry.level is Level.LOW
    return WorklistItem(
        study_uid=study.study_uid,
        procedure_id=study.key[:16],
        priority="LOW" if ordered_low else PRIORITIES[entry.level],
        modality=_modality(study.modalities),
        patient_name=patient.name,
        patient_id=patient.id,
        issuer_of_patient_id=patient.issuer,
        birth_date=patient.birth_date,
        sex=patient.sex,
        accession_number=study.accession,
        procedure_description=study.description,
        location=study.location,
        station_ae=study.calling_ae,
        station_name=study.station,
        start_date=study.date,
        start_time=study.time,
        step_description=_step_description(entry),
        step_id=f"READ{study.id}",
    )


def _modality(modalities: tuple[str, ...]) -> str:
    """The imaging modality of a study that may also hold reports and captures."""
    imaging = [m for m in modalities if m in IMAGING] or list(modalities)
    return imaging[0] if imaging else ""


def _step_description(entry: WorklistEntry) -> str:
    """What the reader is told in 64 characters; nothing about the model in shadow mode."""
    analysis = entry.analysis
    if analysis is None or analysis.shadow or not analysis.findings:
        return f"Read {entry.study.description}".strip()
    first = analysis.findings[0]
    told = f"{first.display[:34]} {first.probability:.0%}"
    return f"AI: suspected {told} RESEARCH"

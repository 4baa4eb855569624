"""An announcement as a workitem: the reading task of a study, at somebody else's manager."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from agent.delivery.announcements import Announcement
from agent.settings_ups import UpsSending
from agent.workitems import content
from agent.workitems.content import Reading

#: Said again of a workitem that is there already.
_CHANGES = (
    "SpecificCharacterSet",
    "ScheduledProcedureStepPriority",
    "ScheduledProcedureStepModificationDateTime",
    "CommentsOnTheScheduledProcedureStep",
    "InputReadinessState",
)
SUPERSEDED = "replaced: more images of the study were analyzed"


@dataclass(frozen=True)
class Task:
    """What goes to the manager.

    Attributes:
        uid: the same at every attempt.
        whole: to create it.
        changes: to change one that exists.
        replaces: UID of the task that it takes the place of; empty = none.
    """

    uid: str
    whole: Dataset
    changes: Dataset
    replaces: str


def task(told: Announcement, settings: UpsSending) -> Task:
    """The workitem of an announcement; nothing in it depends on the moment of sending."""
    uid, replaces = _uids(told, settings)
    whole = content.new(content.dataset(_reading(told, settings, uid), told.enqueued_at))
    changes = Dataset()
    changes.update({e.tag: e for e in whole if e.keyword in _CHANGES})
    return Task(uid, whole, changes, replaces)


def text(made: Task) -> str:
    """For people."""
    lines = [f"workitem {made.uid}", *_lines(made.whole)]
    if made.replaces:
        lines.append(f"cancels workitem {made.replaces}")
    return "\n".join(lines)


def _lines(ds: Dataset, indent: str = "  ") -> Iterator[str]:
    for element in ds:
        if element.VR != "SQ":
            yield f"{indent}{element.keyword}: {element.value}"
            continue
        yield f"{indent}{element.keyword}: {len(element.value)} items"
        for item in element.value:
            yield from _lines(item, indent + "  ")


def _uids(told: Announcement, settings: UpsSending) -> tuple[str, str]:
    study = told.study.identity.study_uid
    if settings.workitem_per == "study":
        return content.uid_of(study), ""
    before = content.uid_of(study, str(told.revision - 1)) if told.revision > 1 else ""
    return content.uid_of(study, str(told.revision)), before


def _reading(told: Announcement, settings: UpsSending, uid: str) -> Reading:
    study = told.study
    return Reading(
        uid=uid,
        level=told.priority.level,
        reason=told.priority.reason,
        study_uid=study.identity.study_uid,
        patient_id=study.identity.patient_id,
        issuer=study.identity.issuer_of_patient_id,
        patient_name=study.patient_name,
        birth_date=study.birth_date,
        sex=study.sex,
        accession=study.identity.accession_number,
        description=study.procedure,
        starts=told.enqueued_at,
        label=settings.worklist_label,
        placer_order=study.placer_order,
        filler_order=study.filler_order,
        procedure_id=study.procedure_id,
        indication=study.indication,
    )

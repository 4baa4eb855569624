"""Modality Performed Procedure Step SCP (PS3.4 annex F): what a modality says it has made."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_context, evt
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]

from dicom_nodes import statuses
from dicom_nodes.scp import references
from dicom_nodes.scp.dispatch import Service
from dicom_nodes.scp.references import ReferencesError, SeriesReferences

INVALID_ATTRIBUTE_VALUE = 0x0106
RESOURCE_LIMITATION = 0x0213

_IMAGES = ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")

log = structlog.get_logger(__name__)


class StepStatus(enum.StrEnum):
    """Performed Procedure Step Status (0040,0252)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


@dataclass(frozen=True)
class StepMessage:
    """An N-CREATE or N-SET, as far as it says what was made.

    Attributes:
        sop_uid: the step.
        status: None = an N-SET that does not change it.
        study_uids: of the scheduled steps it performs; an N-SET rarely says.
        series: None = not said.
    """

    sop_uid: str
    status: StepStatus | None
    study_uids: tuple[str, ...]
    series: tuple[SeriesReferences, ...] | None
    calling_ae: str


#: Keeps a message and returns the status to answer; success only when it is durable.
Keep = Callable[[StepMessage], int]


def service(create: Keep, update: Keep) -> Service:
    """The service over two functions; they are called from association threads."""

    def on_create(event: Any) -> tuple[int, Dataset | None]:
        made = Dataset()
        sop_uid = event.request.AffectedSOPInstanceUID
        if sop_uid is None:  # PS3.7 10.1.5.1.4: then we name it
            sop_uid = made.AffectedSOPInstanceUID = f"2.25.{uuid.uuid4().int}"
        encoded = event.request.AttributeList
        status = _take(event, str(sop_uid), encoded, lambda: event.attribute_list, create)
        return status, made if len(made) and status == statuses.SUCCESS else None

    def on_set(event: Any) -> tuple[int, Dataset | None]:
        sop_uid = str(event.request.RequestedSOPInstanceUID)
        encoded = event.request.ModificationList
        return _take(event, sop_uid, encoded, lambda: event.modification_list, update), None

    return Service(
        contexts=(build_context(ModalityPerformedProcedureStep),),
        evt_handlers=((evt.EVT_N_CREATE, on_create), (evt.EVT_N_SET, on_set)),
    )


def read(ds: Dataset, sop_uid: str, calling_ae: str) -> StepMessage:
    """A step's dataset as a message.

    Raises:
        ReferencesError: it lists too much.
        ValueError: the status is none that a step can have.
    """
    status = str(ds.get("PerformedProcedureStepStatus") or "").strip()
    scheduled = ds.get("ScheduledStepAttributesSequence") or ()
    if len(scheduled) > references.MAX_SERIES:
        raise ReferencesError("too many scheduled steps")
    studies = dict.fromkeys(references.uid(item, "StudyInstanceUID") for item in scheduled)
    series = None
    if "PerformedSeriesSequence" in ds:
        series = references.read(ds.PerformedSeriesSequence, _IMAGES)
    return StepMessage(
        sop_uid=sop_uid,
        status=StepStatus(status) if status else None,
        study_uids=tuple(uid for uid in studies if uid),
        series=series,
        calling_ae=calling_ae,
    )


def _take(event: Any, sop_uid: str, encoded: Any, decode: Callable[[], Dataset], keep: Keep) -> int:
    """The edge that catches everything: a library's message would quote the dataset."""
    if references.is_too_long(encoded) or len(sop_uid) > 64:
        return RESOURCE_LIMITATION
    try:
        message = read(decode(), sop_uid, str(event.assoc.requestor.ae_title).strip())
    except ReferencesError as error:
        log.warning("performed_step_refused", why=str(error))
        return RESOURCE_LIMITATION
    except Exception as error:  # noqa: BLE001
        log.warning("performed_step_refused", why=type(error).__name__)
        return INVALID_ATTRIBUTE_VALUE
    try:
        return keep(message)
    except Exception as error:  # noqa: BLE001
        log.error("performed_step_not_kept", error_type=type(error).__name__)
        return statuses.PROCESSING_FAILURE

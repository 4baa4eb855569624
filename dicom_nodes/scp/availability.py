"""Instance Availability Notification SCP (PS3.4 annex R): what an archive says it holds."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_context, evt
from pynetdicom.sop_class import InstanceAvailabilityNotification  # type: ignore[attr-defined]

from dicom_nodes import statuses
from dicom_nodes.scp import references
from dicom_nodes.scp.dispatch import Service
from dicom_nodes.scp.references import ReferencesError, SeriesReferences

INVALID_ATTRIBUTE_VALUE = 0x0106
MISSING_ATTRIBUTE = 0x0120
RESOURCE_LIMITATION = 0x0213

#: Instance Availability (0008,0056) of what nobody can fetch.
_GONE = frozenset({"UNAVAILABLE"})

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Notice:
    """One notification: instances of one study that are available."""

    sop_uid: str
    study_uid: str
    series: tuple[SeriesReferences, ...]
    calling_ae: str


#: Keeps a notice and returns the status to answer; success only when it is durable.
Keep = Callable[[Notice], int]


def service(keep: Keep) -> Service:
    """The service over a function that is called from association threads."""

    def on_create(event: Any) -> tuple[int, Dataset | None]:
        made = Dataset()
        sop_uid = event.request.AffectedSOPInstanceUID
        if sop_uid is None:  # PS3.7 10.1.5.1.4: then we name it
            sop_uid = made.AffectedSOPInstanceUID = f"2.25.{uuid.uuid4().int}"
        status = _take(event, str(sop_uid), keep)
        return status, made if len(made) and status == statuses.SUCCESS else None

    return Service(
        contexts=(build_context(InstanceAvailabilityNotification),),
        evt_handlers=((evt.EVT_N_CREATE, on_create),),
    )


def read(ds: Dataset, sop_uid: str, calling_ae: str) -> Notice:
    """A notification's dataset.

    Raises:
        ReferencesError: it lists too much.
    """
    return Notice(
        sop_uid=sop_uid,
        study_uid=references.uid(ds, "StudyInstanceUID"),
        series=references.read(
            ds.get("ReferencedSeriesSequence"), ("ReferencedSOPSequence",), skip=_GONE
        ),
        calling_ae=calling_ae,
    )


def _take(event: Any, sop_uid: str, keep: Keep) -> int:
    """The edge that catches everything: a library's message would quote the dataset."""
    if references.is_too_long(event.request.AttributeList) or len(sop_uid) > 64:
        return RESOURCE_LIMITATION
    try:
        notice = read(event.attribute_list, sop_uid, str(event.assoc.requestor.ae_title).strip())
    except ReferencesError as error:
        log.warning("availability_notice_refused", why=str(error))
        return RESOURCE_LIMITATION
    except Exception as error:  # noqa: BLE001
        log.warning("availability_notice_refused", why=type(error).__name__)
        return INVALID_ATTRIBUTE_VALUE
    if not notice.study_uid:
        return MISSING_ATTRIBUTE
    try:
        return keep(notice)
    except Exception as error:  # noqa: BLE001
        log.error("availability_notice_not_kept", error_type=type(error).__name__)
        return statuses.PROCESSING_FAILURE

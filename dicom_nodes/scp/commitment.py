"""Storage Commitment on our port: requests of peers, and reports that answer requests of ours.

A report may come on an association that the other side opens (role reversal): the context is
accepted in both roles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from pynetdicom import build_context, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from dicom_nodes import commitment, statuses
from dicom_nodes.commitment import CommitmentError, Report, Request
from dicom_nodes.scp import references
from dicom_nodes.scp.dispatch import Service

# PS3.4 J.3.2.1.4 and PS3.7 annex C
INVALID_ARGUMENT = 0x0115
NO_SUCH_ACTION = 0x0123
NO_SUCH_EVENT = 0x0113
RESOURCE_LIMITATION = 0x0213

#: Reports on the association the request came on; raises NodeError when it is gone.
Reply = Callable[[Report], None]
#: Keeps a request (with the peer's AE title) and returns the status to answer.
KeepRequest = Callable[[Request, str, Reply], int]
#: Acts on a report and returns the status to answer.
KeepReport = Callable[[Report], int]

log = structlog.get_logger(__name__)


def service(on_request: KeepRequest, on_report: KeepReport) -> Service:
    """The service over two functions; they are called from association threads."""

    def on_action(event: Any) -> tuple[int, None]:
        if event.action_type != commitment.REQUEST:
            return NO_SUCH_ACTION, None
        return _guarded("commitment_request", event.request.ActionInformation, act(event)), None

    def act(event: Any) -> Callable[[], int]:
        calling_ae = str(event.assoc.requestor.ae_title).strip()
        return lambda: on_request(
            commitment.read_request(event.action_information), calling_ae, _reply(event.assoc)
        )

    def on_event(event: Any) -> tuple[int, None]:
        if event.event_type not in {commitment.ALL_COMMITTED, commitment.SOME_FAILED}:
            return NO_SUCH_EVENT, None
        return (
            _guarded(
                "commitment_report",
                event.request.EventInformation,
                lambda: on_report(commitment.read_report(event.event_information)),
            ),
            None,
        )

    return Service(
        contexts=(_context(),),
        evt_handlers=((evt.EVT_N_ACTION, on_action), (evt.EVT_N_EVENT_REPORT, on_event)),
    )


def _context() -> PresentationContext:
    context = build_context(StorageCommitmentPushModel)
    context.scu_role = context.scp_role = True
    return context


def _guarded(what: str, encoded: Any, act: Callable[[], int]) -> int:
    """The edge that catches everything: a library's message would quote the dataset."""
    if references.is_too_long(encoded):
        return RESOURCE_LIMITATION
    try:
        return act()
    except CommitmentError as error:
        log.warning("commitment_refused", kind=what, why=str(error))
        return INVALID_ARGUMENT
    except Exception as error:  # noqa: BLE001
        log.error("commitment_failed", kind=what, error_type=type(error).__name__)
        return statuses.PROCESSING_FAILURE


def _reply(association: Any) -> Reply:
    def reply(report: Report) -> None:
        status, _ = association.send_n_event_report(
            commitment.report_dataset(report),
            report.event_type,
            StorageCommitmentPushModel,
            commitment.INSTANCE_UID,
        )
        if status.get("Status") != statuses.SUCCESS:
            raise ConnectionError("the report was not taken on the association of its request")

    return reply

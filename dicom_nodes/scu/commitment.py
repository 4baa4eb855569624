"""Storage commitment over associations of ours: ask for it, and report to who asked us."""

from __future__ import annotations

import threading
from typing import Any

from pynetdicom import build_context, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from dicom_nodes import answers, commitment, statuses
from dicom_nodes.commitment import CommitmentError, Report, Request
from dicom_nodes.node import Node
from dicom_nodes.scu.association import associate, broken, where

#: The peer knows the transaction already: our earlier question was heard, its answer lost.
_DUPLICATE_TRANSACTION = 0x0131


def ask(node: Node, request: Request, wait_s: float = 1.0) -> Report | None:
    """N-ACTION; the report if it comes on this association, else None: it comes to our SCP.

    Args:
        node: the provider.
        request: what is to be committed.
        wait_s: how long to hold the association open for the report.

    Raises:
        NodeError: unavailable, or it does not take such requests.
    """
    reports: list[Report] = []
    heard = threading.Event()

    def on_report(event: Any) -> tuple[int, None]:
        try:
            report = commitment.read_report(event.event_information)
        except (CommitmentError, ValueError, TypeError):
            return statuses.PROCESSING_FAILURE, None
        if report.transaction_uid == request.transaction_uid:
            reports.append(report)
            heard.set()
        return statuses.SUCCESS, None

    handlers = [(evt.EVT_N_EVENT_REPORT, on_report)]
    contexts = [build_context(StorageCommitmentPushModel)]
    with associate(node, contexts, evt_handlers=handlers) as association:
        status, _ = association.send_n_action(
            commitment.request_dataset(request),
            commitment.REQUEST,
            StorageCommitmentPushModel,
            commitment.INSTANCE_UID,
        )
        if "Status" not in status:
            raise broken(node)
        value = int(status.Status)
        error = answers.error_of(value, f"{where(node)}: storage commitment not taken")
        if error and value != _DUPLICATE_TRANSACTION:
            raise error
        heard.wait(wait_s)
    return reports[0] if reports else None


def report(node: Node, result: Report) -> None:
    """N-EVENT-REPORT on an association of its own, in which we are the provider.

    Raises:
        NodeError: unavailable, or it did not take the report.
    """
    contexts = [build_context(StorageCommitmentPushModel)]
    roles = [build_role(StorageCommitmentPushModel, scp_role=True)]
    with associate(node, contexts, roles=roles) as association:
        status, _ = association.send_n_event_report(
            commitment.report_dataset(result),
            result.event_type,
            StorageCommitmentPushModel,
            commitment.INSTANCE_UID,
        )
        if "Status" not in status:
            raise broken(node)
        error = answers.error_of(int(status.Status), f"{where(node)}: commitment report not taken")
        if error:
            raise error

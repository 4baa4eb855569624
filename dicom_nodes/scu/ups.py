"""Workitems at another manager (N-CREATE, N-SET, N-GET, cancel), and events to subscribers."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom import build_context, build_role
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
)

from dicom_nodes import answers
from dicom_nodes.errors import NodeError, PeerBusy, PeerRefused
from dicom_nodes.node import Node
from dicom_nodes.scu.association import associate, broken, where
from dicom_nodes.ups import MEANINGS, Action, EventType, State, Status

_CONTEXTS = [build_context(UnifiedProcedureStepPush), build_context(UnifiedProcedureStepPull)]
#: Somebody performs it, or has: what is to be read is being read.
_TAKEN = frozenset(
    {Status.MAY_NOT_BE_UPDATED, Status.WRONG_TRANSACTION, Status.ALREADY_IN_PROGRESS}
)


def schedule(node: Node, uid: str, task: Dataset, changes: Dataset) -> bool:
    """Create a workitem, or change the one that is there; False when it is performed already.

    Args:
        node: the manager.
        uid: the same for every attempt.
        task: the whole of it, scheduled.
        changes: what is said again of one that exists.

    Raises:
        NodeError: unavailable, refused, or a failure status.
    """
    with associate(node, _CONTEXTS) as association:
        status, _ = association.send_n_create(task, UnifiedProcedureStepPush, uid)
        value = _value(status, node)
        if value != Status.DUPLICATE:
            _check(value, node, "workitem not created")
            return True
        status, _ = association.send_n_set(
            changes, UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull
        )
        value = _value(status, node)
        if value in _TAKEN:
            return False
        _check(value, node, "workitem not updated")
        return True


def cancel(node: Node, uid: str, reason: str) -> None:
    """Ask for a workitem's cancellation; one that is unknown or finished needs none.

    Raises:
        NodeError: unavailable, refused, or a failure status.
    """
    asked = Dataset()
    asked.ReasonForCancellation = reason
    with associate(node, _CONTEXTS) as association:
        status, _ = association.send_n_action(
            asked, int(Action.REQUEST_CANCEL), UnifiedProcedureStepPush, uid
        )
        value = _value(status, node)
        if value not in {Status.UNKNOWN_WORKITEM, Status.COMPLETED_ALREADY}:
            _check(value, node, "cancellation not taken")


def state(node: Node, uid: str) -> State | None:
    """The state of a workitem; None when there is none.

    Raises:
        NodeError: unavailable, refused, or a failure status.
    """
    with associate(node, _CONTEXTS) as association:
        status, ds = association.send_n_get(
            [Tag(0x00741000)], UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepPull
        )
        value = _value(status, node)
        if value == Status.UNKNOWN_WORKITEM:
            return None
        _check(value, node, "workitem not read")
    return State(str(ds.ProcedureStepState)) if ds is not None else None


def report(node: Node, events: Sequence[tuple[str, int, Dataset]]) -> int:
    """Bring (workitem, type, information) to a subscriber, in order; returns how many it took.

    Raises:
        NodeError: unavailable, refused, or a failure status of the first one.
    """
    contexts = [build_context(UnifiedProcedureStepEvent)]
    roles = [build_role(UnifiedProcedureStepEvent, scp_role=True)]
    with associate(node, contexts, roles=roles) as association:
        for number, (uid, kind, info) in enumerate(events):
            error = _reported(association, node, uid, EventType(kind), info)
            if error and number == 0:
                raise error
            if error:
                return number
    return len(events)


def _reported(
    association: Association, node: Node, uid: str, kind: EventType, info: Dataset
) -> NodeError | None:
    status, _ = association.send_n_event_report(
        info, int(kind), UnifiedProcedureStepPush, uid, meta_uid=UnifiedProcedureStepEvent
    )
    if "Status" not in status:
        return broken(node)
    return answers.error_of(int(status.Status), f"{where(node)}: event not taken")


def _value(status: Dataset, node: Node) -> int:
    if "Status" not in status:
        raise broken(node)
    return int(status.Status)


def _check(value: int, node: Node, what: str) -> None:
    """Raise the error of a failure; the meanings are those of workitems."""
    if value in set(Status) and value >= 0xC000:
        raise PeerRefused(f"{where(node)}: {what}: {MEANINGS[Status(value)]} (0x{value:04X})")
    if value == Status.RESOURCE_LIMITATION:
        raise PeerBusy(f"{where(node)}: {what}: out of resources (0x{value:04X}); will try again")
    error = answers.error_of(value, f"{where(node)}: {what}")
    if error and value != Status.DUPLICATE:
        raise error

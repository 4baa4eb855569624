"""Unified Procedure Step SCP (PS3.4 annex CC): Push, Pull, Watch and Query over a manager."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_context, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
)

from dicom_nodes import statuses
from dicom_nodes.scp import matching, references
from dicom_nodes.scp.dispatch import UNRECOGNIZED_OPERATION, Service
from dicom_nodes.ups import Action, Refused, Status

MATCH, CANCELLED = 0xFF00, 0xFE00
IDENTIFIER_MISMATCH, UNABLE_TO_PROCESS = 0xA900, 0xC001
_COMMENT = 64

_PUSH, _PULL = str(UnifiedProcedureStepPush), str(UnifiedProcedureStepPull)
_WATCH, _QUERY = str(UnifiedProcedureStepWatch), str(UnifiedProcedureStepQuery)

#: Which action is spoken under which SOP class (table CC.2-1).
ACTIONS = {
    Action.CHANGE_STATE: {_PULL},
    Action.REQUEST_CANCEL: {_PUSH, _WATCH},
    Action.SUBSCRIBE: {_WATCH},
    Action.UNSUBSCRIBE: {_WATCH},
    Action.SUSPEND: {_WATCH},
}

log = structlog.get_logger(__name__)

Answer = tuple[int | Dataset, Dataset | None]


class Manager(Protocol):
    """Who holds the workitems; every method raises `Refused`."""

    def create(self, uid: str, ds: Dataset, who: str) -> str:
        """N-CREATE; returns the UID."""

    def retrieve(self, uid: str) -> Dataset:
        """N-GET, all attributes."""

    def search(self, keys: Dataset) -> Iterator[Dataset]:
        """C-FIND."""

    def update(self, uid: str, changes: Dataset) -> Status:
        """N-SET."""

    def change_state(self, uid: str, wanted: str, transaction_uid: str, who: str) -> Status:
        """N-ACTION 1."""

    def request_cancel(self, uid: str, asked: Dataset, who: str) -> Status:
        """N-ACTION 2."""

    def subscribe(
        self,
        target: str,
        ae_title: str,
        *,
        deletion_lock: bool = False,
        keys: Dataset | None = None,
    ) -> Status:
        """N-ACTION 3."""

    def unsubscribe(self, target: str, ae_title: str) -> Status:
        """N-ACTION 4."""

    def suspend(self, target: str, ae_title: str) -> Status:
        """N-ACTION 5."""


def service(manager: Manager, known: Callable[[str], bool]) -> Service:
    """The services over a manager.

    Args:
        manager: holds the workitems; called from association threads.
        known: whether events can be brought to an AE title; others may not subscribe.
    """
    handlers = _Handlers(manager, known)
    contexts = (
        UnifiedProcedureStepPush,
        UnifiedProcedureStepPull,
        UnifiedProcedureStepWatch,
        UnifiedProcedureStepQuery,
    )
    return Service(
        contexts=tuple(build_context(one) for one in contexts),
        evt_handlers=(
            (evt.EVT_N_CREATE, handlers.on_create),
            (evt.EVT_N_GET, handlers.on_get),
            (evt.EVT_N_SET, handlers.on_set),
            (evt.EVT_N_ACTION, handlers.on_action),
            (evt.EVT_C_FIND, handlers.on_find),
        ),
    )


class _Handlers:
    def __init__(self, manager: Manager, known: Callable[[str], bool]) -> None:
        self._manager = manager
        self._known = known

    def on_create(self, event: Any) -> Answer:
        def create() -> Answer:
            given = event.request.AffectedSOPInstanceUID
            uid = str(given) if given is not None else f"2.25.{uuid.uuid4().int}"
            made = Dataset()
            made.AffectedSOPInstanceUID = self._manager.create(
                uid, event.attribute_list, _calling(event)
            )
            return Status.SUCCESS, None if given is not None else made

        return _guarded(event, {_PUSH}, event.request.AttributeList, create)

    def on_get(self, event: Any) -> Answer:
        def get() -> Answer:
            ds = self._manager.retrieve(_requested(event))
            wanted = set(event.attribute_identifiers)
            if wanted:
                ds = _only(ds, wanted)
            return Status.SUCCESS, ds

        return _guarded(event, {_PUSH, _PULL, _WATCH, _QUERY}, None, get)

    def on_set(self, event: Any) -> Answer:
        def change() -> Answer:
            return int(self._manager.update(_requested(event), event.modification_list)), None

        return _guarded(event, {_PULL}, event.request.ModificationList, change)

    def on_action(self, event: Any) -> Answer:
        def act() -> Answer:
            action = event.action_type
            if action not in ACTIONS or _class(event) not in ACTIONS[action]:
                raise Refused(Status.NO_SUCH_ACTION)
            info = event.action_information if event.request.ActionInformation else Dataset()
            return int(self._act(action, _requested(event), info, _calling(event))), None

        return _guarded(event, {_PUSH, _PULL, _WATCH}, event.request.ActionInformation, act)

    def _act(self, action: int, uid: str, info: Dataset, who: str) -> Status:
        manager = self._manager
        if action == Action.CHANGE_STATE:
            wanted = str(info.get("ProcedureStepState") or "")
            return manager.change_state(uid, wanted, str(info.get("TransactionUID") or ""), who)
        if action == Action.REQUEST_CANCEL:
            return manager.request_cancel(uid, info, who)
        receiver = str(info.get("ReceivingAE") or who).strip()
        if action == Action.UNSUBSCRIBE:
            return manager.unsubscribe(uid, receiver)
        if action == Action.SUSPEND:
            return manager.suspend(uid, receiver)
        if not self._known(receiver):
            raise Refused(Status.UNKNOWN_RECEIVER)
        lock = str(info.get("DeletionLock") or "FALSE").upper() == "TRUE"
        keys = Dataset()
        keys.update({e.tag: e for e in info if e.keyword not in {"ReceivingAE", "DeletionLock"}})
        return manager.subscribe(
            uid, receiver, deletion_lock=lock, keys=keys if len(keys) else None
        )

    def on_find(self, event: Any) -> Iterator[Answer]:
        if _class(event) not in {_PULL, _WATCH, _QUERY}:
            yield IDENTIFIER_MISMATCH, None
            return
        try:
            keys, number = event.identifier, 0
            for found in self._manager.search(keys):
                if event.is_cancelled:
                    yield CANCELLED, None
                    return
                number += 1
                answer = matching.returned(keys, found)
                answer.SpecificCharacterSet = "ISO_IR 192"
                yield MATCH, answer
            log.info("workitems_queried", matches=number, calling_ae=_calling(event))
        except matching.MatchingError as error:
            yield _failure(IDENTIFIER_MISMATCH, str(error)), None
        except Exception as error:  # noqa: BLE001 - the edge: a library would quote the identifier
            log.error("workitem_query_failed", error_type=type(error).__name__)
            yield _failure(UNABLE_TO_PROCESS, "the workitems cannot be read; see the log"), None


def _guarded(event: Any, classes: set[str], encoded: Any, do: Callable[[], Answer]) -> Answer:
    """The edge that catches everything: a library's message would quote the dataset."""
    if _class(event) not in classes:
        return UNRECOGNIZED_OPERATION, None
    if encoded is not None and references.is_too_long(encoded):
        return int(Status.RESOURCE_LIMITATION), None
    try:
        return do()
    except Refused as error:
        log.info("workitem_refused", why=str(error), calling_ae=_calling(event))
        return _failure(int(error.status), str(error)), None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("workitem_refused", why=type(error).__name__, calling_ae=_calling(event))
        return int(Status.INVALID_VALUE), None
    except Exception as error:  # noqa: BLE001
        log.error("workitem_failed", error_type=type(error).__name__)
        return statuses.PROCESSING_FAILURE, None


def _only(ds: Dataset, wanted: set[Any]) -> Dataset:
    part = Dataset()
    part.SpecificCharacterSet = "ISO_IR 192"
    part.update({e.tag: e for e in ds if e.tag in wanted})
    return part


def _class(event: Any) -> str:
    return str(event.context.abstract_syntax)


def _requested(event: Any) -> str:
    return str(event.request.RequestedSOPInstanceUID)


def _calling(event: Any) -> str:
    return str(event.assoc.requestor.ae_title).strip()


def _failure(status: int, why: str) -> Dataset:
    ds = Dataset()
    ds.Status, ds.ErrorComment = status, why[:_COMMENT]
    return ds

"""Associations served by pynetdicom on a connection that we accepted ourselves.

It serves what the fast path does not: worklist queries and any other extra service on the same
port, and by configuration (``engine = "pynetdicom"``) storage as well. Two defects of pynetdicom
3.0.4 are kept out: the socket has a time-out of its own, so that a peer that stalls inside a PDU
loses its place; and datasets are written to our temporary files, not to pynetdicom's, which it
leaves behind when a transfer breaks.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from pynetdicom import AE, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, AssociationSocket

from dicom_nodes import presentation, statuses
from dicom_nodes.received import Peer, StoreHandler, StoreRequest
from dicom_nodes.scp import storage

log = structlog.get_logger(__name__)

EventHandlers = Sequence[tuple[Any, Callable[..., Any]]]

_STORAGE_SERVICE = "1.2.840.10008.4.2"

#: Longest message of a service that is not storage; pynetdicom collects it in memory, however long.
MAX_MESSAGE_BYTES = 32 * 2**20


class PynetdicomEngine:
    """Runs pynetdicom acceptors for connections whose A-ASSOCIATE-RQ was already read."""

    def __init__(
        self,
        ae: AE,
        handler: StoreHandler,
        contexts: Sequence[PresentationContext] = (),
        evt_handlers: EventHandlers = (),
    ) -> None:
        """Take the entity with its time-outs, and the extra services' contexts and handlers."""
        self._ae = ae
        self._handler = handler
        self._extra = {str(cx.abstract_syntax): cx for cx in contexts}
        self._evt_handlers = evt_handlers

    def start(
        self, sock: socket.socket, request: bytes, proposed: frozenset[str], peer: Peer
    ) -> Association:
        """Start the acceptor's thread and return it.

        Args:
            sock: the accepted connection, with a time-out.
            request: the A-ASSOCIATE-RQ as read from it.
            proposed: its abstract syntaxes.
            peer: who sent it.
        """
        association = Association(self._ae, MODE_ACCEPTOR)
        association.set_socket(_ReplaySocket(association, sock, request))
        acceptor = association.acceptor
        acceptor.maximum_length = self._ae.maximum_pdu_size
        acceptor.ae_title = self._ae.ae_title
        acceptor.address_info = AddressInformation.from_tuple(sock.getsockname())
        acceptor.implementation_class_uid = self._ae.implementation_class_uid
        acceptor.implementation_version_name = self._ae.implementation_version_name
        acceptor.supported_contexts = self._contexts_for(proposed)
        association.requestor.address_info = AddressInformation.from_tuple(sock.getpeername())
        association.bind(evt.EVT_SOP_COMMON, _private_classes_are_storage)
        association.bind(evt.EVT_C_STORE, self._on_store, [peer])
        association.bind(evt.EVT_C_ECHO, lambda _event: statuses.SUCCESS)
        association.bind(evt.EVT_PDU_RECV, _bound_message)
        for event, event_handler in self._evt_handlers:
            association.bind(event, event_handler)
        evt.trigger(association, evt.EVT_CONN_OPEN, {"address": sock.getpeername()})
        association.start()
        return association

    def _contexts_for(self, proposed: frozenset[str]) -> list[PresentationContext]:
        # Only what this peer proposed: pynetdicom copies all contexts for every association, which
        # took 62 to 95 ms for the complete list.
        storage_classes = [uid for uid in proposed if presentation.is_storage(uid)]
        if presentation.VERIFICATION in proposed:
            storage_classes.append(presentation.VERIFICATION)
        extra = [cx for uid, cx in self._extra.items() if uid in proposed]
        ours = [uid for uid in storage_classes if uid not in self._extra]
        return [*presentation.supported_contexts(ours), *extra]

    def _on_store(self, event: Any, peer: Peer) -> int:
        """Take a C-STORE: the dataset is in memory here, unlike on the fast path."""
        command = event.request
        request = StoreRequest(
            sop_class_uid=str(command.AffectedSOPClassUID or ""),
            sop_instance_uid=str(command.AffectedSOPInstanceUID or ""),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            peer=peer,
        )
        status = storage.admit(self._handler, request, str(event.context.abstract_syntax))
        if status != statuses.SUCCESS:
            return status
        if command.DataSet is None:
            return statuses.NO_DATASET
        try:
            incoming = storage.Incoming(self._handler.incoming, request)
        except OSError as error:
            return storage.failure_status(error)
        try:
            with command.DataSet.getbuffer() as view:
                incoming.add(view)
                incoming.flush()
        except OSError as error:
            incoming.discard()
            return storage.failure_status(error)
        return storage.store(self._handler, incoming)


class _ReplaySocket(AssociationSocket):
    """A connection whose first bytes were read before pynetdicom got it."""

    def __init__(self, association: Association, sock: socket.socket, replay: bytes) -> None:
        self._replay = bytearray(replay)
        super().__init__(association, client_socket=sock)

    @property
    def ready(self) -> bool:
        return bool(self._replay) or bool(super().ready)

    def recv(self, nr_bytes: int) -> bytearray:
        taken, self._replay = self._replay[:nr_bytes], self._replay[nr_bytes:]
        if len(taken) < nr_bytes:
            taken += super().recv(nr_bytes - len(taken))
        return taken


def _bound_message(event: Any) -> None:
    """End the connection under a message that grows beyond all reason.

    Not by an abort: this runs in the thread that would have to send it.
    """
    message = event.assoc.dimse.message
    if message is None or type(message).__name__ == "C_STORE_RQ":
        return
    if message.data_set.tell() + message.encoded_command_set.tell() > MAX_MESSAGE_BYTES:
        log.warning("message_too_long", calling_ae=str(event.assoc.requestor.ae_title).strip())
        with contextlib.suppress(OSError):
            event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)


def _private_classes_are_storage(event: Any) -> dict[str, SOPClassCommonExtendedNegotiation]:
    """Make pynetdicom serve unknown storage classes, as if the peer had said what they are."""
    items = dict(event.items)
    proposed = event.assoc.requestor.primitive.presentation_context_definition_list
    for uid in {str(cx.abstract_syntax) for cx in proposed}:
        if presentation.is_storage(uid) and not presentation.is_known_storage(uid):
            item = SOPClassCommonExtendedNegotiation()
            item.sop_class_uid = uid
            item.service_class_uid = _STORAGE_SERVICE
            items[uid] = item
    return items

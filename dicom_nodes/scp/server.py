"""The listening node: accepts connections, admits associations and gives each its thread.

Associations that propose nothing but storage and verification are served by `fast_path`; those
that propose an extra service (e.g. a worklist query) are handed, on the same connection, to a
pynetdicom acceptor (`fallback`).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence

import structlog
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.presentation import PresentationContext

from dicom_nodes import identifiers, statuses
from dicom_nodes.errors import NodeConfigError
from dicom_nodes.received import Peer, StoreHandler
from dicom_nodes.scp import fallback, fast_path, negotiation
from dicom_nodes.scp.commands import PeerGone, PeerSilent, ProtocolError
from dicom_nodes.scp.connection import Served
from dicom_nodes.scp.settings import ServerSettings, refusal

log = structlog.get_logger(__name__)

_BACKLOG = 128
_UNADMITTED, _UNADMITTED_PER_PEER = 64, 16
"""Connections beyond the limits of associations that may be waiting for their answer."""
_END_S = 2.0


class StorageServer:
    """Receives instances on one port and hands them to a `StoreHandler`."""

    def __init__(
        self,
        settings: ServerSettings,
        handler: StoreHandler,
        *,
        contexts: Sequence[PresentationContext] = (),
        evt_handlers: fallback.EventHandlers = (),
    ) -> None:
        """Prepare; `start` opens the port.

        Args:
            settings: where and how to listen.
            handler: what to do with instances.
            contexts: presentation contexts of extra services, served by pynetdicom.
            evt_handlers: pynetdicom event handlers of the extra services.
        """
        self._settings = settings
        self._handler = handler
        self._extra = frozenset(str(cx.abstract_syntax) for cx in contexts)
        self._engine = fallback.PynetdicomEngine(
            _application_entity(settings), handler, contexts, evt_handlers
        )
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._connections: dict[threading.Thread, Served] = {}
        self._slots: Counter[str] = Counter()

    @property
    def port(self) -> int:
        """The port we listen on (the one that was found free, if 0 was asked for)."""
        if self._listener is None:
            raise NodeConfigError("the storage server is not started; call start() first")
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def active_associations(self) -> int:
        """Associations that hold a place at this moment."""
        with self._lock:
            return self._slots.total()

    def start(self) -> None:
        """Open the port and serve in the background.

        Raises:
            NodeConfigError: host and port cannot be bound.
        """
        settings = self._settings
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        try:
            self._listener = socket.create_server(
                (settings.host, settings.port), family=family, backlog=_BACKLOG
            )
        except OSError as error:
            raise NodeConfigError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
                "stop what uses the port, or choose another in [dicom]"
            ) from error
        threading.Thread(
            target=self._accept, args=(self._listener,), name="dicom-accept", daemon=True
        ).start()
        log.info("storage_server_started", ae=settings.ae_title, port=self.port)

    def stop(self, drain_s: float = 0.0) -> None:
        """Close the port, let running transfers end for up to `drain_s`, then end the rest."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept(); close alone would not
        listener.close()
        deadline = time.monotonic() + drain_s
        while self._unfinished(idle_is_finished=True) and time.monotonic() < deadline:
            time.sleep(0.02)
        rest = self._unfinished(idle_is_finished=False)
        for _, served in rest:
            served.end()
        end = time.monotonic() + _END_S
        for thread, _ in rest:
            thread.join(timeout=max(end - time.monotonic(), 0))
        log.info("storage_server_stopped", unfinished=len(self._connections))

    def _unfinished(self, *, idle_is_finished: bool) -> list[tuple[threading.Thread, Served]]:
        with self._lock:
            items = list(self._connections.items())
        return [item for item in items if not (idle_is_finished and item[1].settled)]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, address = listener.accept()
            except OSError as error:
                if listener.fileno() == -1 or self._listener is None:
                    return
                log.error("accept_failed", errno=error.errno)  # e.g. too many open files
                time.sleep(0.1)
                continue
            served = Served(sock, str(address[0]))
            thread = threading.Thread(
                target=self._run, args=(served,), name="dicom-association", daemon=True
            )
            with self._lock:
                full = self._is_crowded(served.address)
                if not full:
                    self._connections[thread] = served
                    thread.start()  # under the lock: stop() must not join an unstarted thread
            if full:
                log.warning("connection_refused", reason="too many connections")
                sock.close()

    def _is_crowded(self, address: str) -> bool:
        """Whether there are too many connections: in all, or from one that keeps others out."""
        settings, others = self._settings, self._connections.values()
        if len(others) >= settings.max_associations + _UNADMITTED:
            return True
        limit = settings.max_associations_per_peer + _UNADMITTED_PER_PEER
        return sum(other.address == address for other in others) >= limit

    def _run(self, served: Served) -> None:
        """Serve one connection; the edge that catches everything and always closes it."""
        try:
            served.prepare(self._settings)
            self._associate(served)
        except (PeerGone, negotiation.InvalidRequest, OSError) as error:
            log.info("connection_dropped", address=served.address, reason=str(error))
        except Exception:
            log.exception("association_failed", address=served.address)
        finally:
            served.close()
            with self._lock:
                self._connections.pop(threading.current_thread(), None)

    def _associate(self, served: Served) -> None:
        request = negotiation.read_request(served.receive_exactly)
        calling, called = negotiation.ae_titles(request)
        peer = Peer(calling_ae=calling, called_ae=called, address=served.address)
        rejection = refusal(self._settings, peer)
        if rejection is None and not self._take_slot(peer):
            rejection = statuses.LOCAL_LIMIT_EXCEEDED
        if rejection is not None:
            log.warning("association_rejected", calling_ae=calling, reason=rejection.name)
            served.last_words(rejection.pdu)
            return
        try:
            self._serve(served, request, peer)
        finally:
            self._free_slot(peer)

    def _serve(self, served: Served, request: bytes, peer: Peer) -> None:
        try:
            negotiated = negotiation.negotiate(request, self._settings.max_pdu)
        except negotiation.InvalidRequest:
            served.last_words(statuses.abort_pdu(statuses.INVALID_PDU_PARAMETER))
            raise
        fast = self._settings.engine == "fast" and not negotiated.proposed & self._extra
        self._handler.association_opened(peer)
        log.info(
            "association_opened",
            calling_ae=peer.calling_ae,
            engine="fast" if fast else "pynetdicom",
        )
        clean = False
        try:
            if fast:
                clean = self._serve_fast(served, negotiated, peer)
            else:
                clean = self._serve_pynetdicom(served, request, negotiated, peer)
        finally:
            self._handler.association_closed(peer, aborted=not clean)
            log.info("association_closed", calling_ae=peer.calling_ae, aborted=not clean)

    def _serve_fast(self, served: Served, negotiated: negotiation.Negotiated, peer: Peer) -> bool:
        settings = self._settings
        limits = fast_path.Limits(
            max_pdu=settings.max_pdu,
            network_timeout_s=settings.network_timeout_s,
            dimse_timeout_s=settings.dimse_timeout_s,
            idle_timeout_s=settings.idle_timeout_s,
            max_instance_bytes=settings.max_instance_bytes,
        )
        served.set_timeout(min(settings.network_timeout_s, settings.idle_timeout_s))
        served.sock.sendall(negotiated.answer)
        connection = fast_path.Connection(
            served.sock, negotiated.contexts, self._handler, peer, limits
        )
        served.connection = connection
        try:
            connection.serve()
        except PeerGone as error:
            log.info("association_broken", calling_ae=peer.calling_ae, reason=str(error))
            if isinstance(error, PeerSilent):
                served.last_words(statuses.abort_pdu(statuses.NO_ABORT_REASON))
            return False
        except ProtocolError as error:
            log.warning("association_aborted", calling_ae=peer.calling_ae, reason=str(error))
            served.last_words(statuses.abort_pdu(error.reason))
            return False
        served.last_words(statuses.RELEASE_RP_PDU)
        return True

    def _serve_pynetdicom(
        self, served: Served, request: bytes, negotiated: negotiation.Negotiated, peer: Peer
    ) -> bool:
        served.sock.settimeout(self._settings.network_timeout_s)
        association = self._engine.start(served.sock, request, negotiated.proposed, peer)
        served.abort = association.abort
        association.join()
        return bool(association.is_released)

    def _take_slot(self, peer: Peer) -> bool:
        with self._lock:
            if self._slots.total() >= self._settings.max_associations:
                return False
            if self._slots[peer.address] >= self._settings.max_associations_per_peer:
                return False
            self._slots[peer.address] += 1
            return True

    def _free_slot(self, peer: Peer) -> None:
        with self._lock:
            self._slots[peer.address] -= 1
            if not self._slots[peer.address]:
                del self._slots[peer.address]


def _application_entity(settings: ServerSettings) -> AE:
    ae = AE(ae_title=settings.ae_title)
    ae.maximum_pdu_size = settings.max_pdu
    ae.acse_timeout = settings.acse_timeout_s
    ae.dimse_timeout = settings.dimse_timeout_s
    ae.network_timeout = settings.network_timeout_s
    ae.implementation_class_uid = UID(identifiers.IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = identifiers.IMPLEMENTATION_VERSION
    ae.maximum_associations = 2**31  # admission is ours
    return ae

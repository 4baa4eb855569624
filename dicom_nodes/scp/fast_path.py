"""The data phase of a storage association, close to the socket: P-DATA in, C-STORE-RSP out.

pynetdicom needs 8 to 20 CPU seconds per gigabyte for this, most of it for copying every byte five
times, polling and building command objects. Here the bytes go from one buffer to the file, and
only command sets are looked at. Everything else, and this too by configuration, is pynetdicom's.

PDUs: PS3.8 section 9.3. Command sets: `commands`.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from dicom_nodes import identifiers, statuses
from dicom_nodes.received import Peer, StoreHandler, StoreRequest
from dicom_nodes.scp import commands, storage
from dicom_nodes.scp.commands import Command, PeerGone, PeerSilent, ProtocolError
from dicom_nodes.scp.negotiation import Context

log = structlog.get_logger(__name__)

_PDU_HEAD = struct.Struct(">BxL")
_PDV_HEAD = struct.Struct(">LBB")
_RELEASE_RQ, _ABORT = 5, 7
_COMMAND, _LAST = 1, 2  # bits of a PDV's message control header, PS3.8 annex E.2
_MAX_COMMAND_BYTES = 1 << 16
_READ_AHEAD = 1 << 18


@dataclass(frozen=True)
class Limits:
    """What one association may take.

    Attributes:
        max_pdu: longest PDU, as we told the peer.
        network_timeout_s: longest silence while something is expected.
        dimse_timeout_s: longest time from the first to the last byte of one PDU.
        idle_timeout_s: longest silence between messages.
        max_instance_bytes: longest dataset.
    """

    max_pdu: int
    network_timeout_s: float
    dimse_timeout_s: float
    idle_timeout_s: float
    max_instance_bytes: int


class Connection:
    """An accepted association; `serve` runs until the peer releases it or it breaks."""

    def __init__(
        self,
        sock: socket.socket,
        contexts: Mapping[int, Context],
        handler: StoreHandler,
        peer: Peer,
        limits: Limits,
    ) -> None:
        self._sock = sock
        self._contexts = contexts
        self._handler = handler
        self._peer = peer
        self._limits = limits
        self._buffer = bytearray(_READ_AHEAD + limits.max_pdu + 6)
        self._view = memoryview(self._buffer)
        self._begin = self._end = 0  # the part of the buffer not yet looked at
        self._command_bytes = bytearray()
        self._command: Command | None = None  # a C-STORE-RQ whose dataset is arriving
        self._context_id = 0  # of the message that is arriving
        self._incoming: storage.Incoming | None = None  # None while a refused dataset arrives
        self._status = statuses.SUCCESS
        self._pdu_since = 0.0  # when the PDU at `_begin` was first seen unfinished
        self._quick_ack = getattr(socket, "TCP_QUICKACK", None)  # Linux only
        self.idle_since: float | None = time.monotonic()
        """Since when no message is under way; None during one."""

    def serve(self) -> None:
        """Receive messages until the peer releases the association.

        Raises:
            PeerGone: it aborted, closed or stalled.
            ProtocolError: it sent what it must not; the caller sends the A-ABORT.
        """
        try:
            while not self._parse():
                self._receive()
        finally:
            if self._incoming is not None:
                self._incoming.discard()

    def _receive(self) -> None:
        """Read what has arrived behind what is buffered; never waits for more than one byte."""
        if self._begin == self._end and self._incoming is None:
            self._begin = self._end = 0
        elif len(self._buffer) - self._end < self._limits.max_pdu + 6:
            self._make_room()
        started = time.monotonic()
        while True:
            if self._quick_ack is not None:
                # A sender with Nagle's algorithm on holds back the tail of an image until we
                # acknowledge; the kernel falls back to delayed acknowledgements by itself.
                self._sock.setsockopt(socket.IPPROTO_TCP, self._quick_ack, 1)
            try:
                count = self._sock.recv_into(self._view[self._end :])
                break
            except (BlockingIOError, TimeoutError) as error:
                idle = self.idle_since is not None and self._begin == self._end
                limits = self._limits
                longest_s = limits.idle_timeout_s if idle else limits.network_timeout_s
                if time.monotonic() - started < longest_s:
                    continue
                raise PeerSilent("silent for too long") from error
            except OSError as error:
                raise PeerGone("connection broken") from error
        if count == 0:
            raise PeerGone("connection closed without release")
        self._end += count

    def _make_room(self) -> None:
        if self._incoming is not None:
            self._write_out(self._incoming)
        rest = self._end - self._begin
        self._buffer[:rest] = self._view[self._begin : self._end]
        self._begin, self._end = 0, rest

    def _parse(self) -> bool:
        """Look at every whole PDU in the buffer; True when the peer released."""
        while self._end - self._begin >= 6:
            kind, length = _PDU_HEAD.unpack_from(self._buffer, self._begin)
            if kind == commands.P_DATA:
                if not 6 <= length <= self._limits.max_pdu:
                    raise ProtocolError("a P-DATA-TF of impossible length")
            elif kind not in (_RELEASE_RQ, _ABORT):
                known = 1 <= kind <= 7
                raise ProtocolError(
                    "a PDU that has no place in the data phase",
                    statuses.UNEXPECTED_PDU if known else statuses.UNRECOGNIZED_PDU,
                )
            elif length != 4:
                raise ProtocolError("a release or abort of impossible length")
            start = self._begin + 6
            if self._end - start < length:
                self._check_pace()
                return False
            self._pdu_since = 0.0
            self._begin = start + length
            if kind == _RELEASE_RQ:
                return True
            if kind == _ABORT:
                raise PeerGone("aborted by the peer")
            self._p_data(start, start + length)
        return False

    def _check_pace(self) -> None:
        """A peer that feeds single bytes must not hold its place for ever."""
        now = time.monotonic()
        if not self._pdu_since:
            self._pdu_since = now
        elif now - self._pdu_since > self._limits.dimse_timeout_s:
            raise PeerSilent("one PDU took too long")

    def _p_data(self, offset: int, end: int) -> None:
        while offset < end:
            if end - offset < 6:
                raise ProtocolError("a presentation data value is cut off")
            length, context_id, control = _PDV_HEAD.unpack_from(self._buffer, offset)
            start, offset = offset + 6, offset + 4 + length
            if length < 2 or offset > end:
                raise ProtocolError("a presentation data value exceeds its PDU")
            if context_id not in self._contexts:
                raise ProtocolError("a presentation context that was not accepted")
            if control & _COMMAND:
                self._command_fragment(context_id, start, offset, last=bool(control & _LAST))
            else:
                self._data_fragment(context_id, start, offset, last=bool(control & _LAST))

    def _command_fragment(self, context_id: int, start: int, end: int, *, last: bool) -> None:
        if self._command is not None:
            raise ProtocolError("a command where a dataset was expected")
        if self._command_bytes and context_id != self._context_id:
            raise ProtocolError("a command that changes its presentation context")
        self.idle_since = None
        self._context_id = context_id
        self._command_bytes += self._view[start:end]
        if len(self._command_bytes) > _MAX_COMMAND_BYTES:
            raise ProtocolError("a command without end")
        if last:
            command = Command.parse(bytes(self._command_bytes))
            self._command_bytes.clear()
            self._dispatch(command)

    def _dispatch(self, command: Command) -> None:
        if command.field == commands.C_STORE_RQ and command.has_dataset:
            self._begin_store(command)
            return
        if command.field == commands.C_STORE_RQ:
            self._respond(command, statuses.NO_DATASET)
        elif command.field == commands.C_ECHO_RQ and not command.has_dataset:
            self._respond(command, statuses.SUCCESS)
        elif command.field != commands.C_CANCEL_RQ:  # nothing here can be cancelled
            raise ProtocolError("a command that no accepted context allows")
        self.idle_since = time.monotonic()

    def _begin_store(self, command: Command) -> None:
        context = self._contexts[self._context_id]
        request = StoreRequest(
            sop_class_uid=identifiers.clean_uid(command.sop_class),
            sop_instance_uid=identifiers.clean_uid(command.sop_instance),
            transfer_syntax_uid=context.transfer_syntax,
            peer=self._peer,
        )
        self._command = command
        self._status = storage.admit(self._handler, request, context.abstract_syntax)
        if self._status == statuses.SUCCESS:
            try:
                self._incoming = storage.Incoming(self._handler.incoming, request)
            except OSError as error:
                self._status = storage.failure_status(error)

    def _data_fragment(self, context_id: int, start: int, end: int, *, last: bool) -> None:
        if self._command is None:
            raise ProtocolError("a dataset without a command")
        if context_id != self._context_id:
            raise ProtocolError("a dataset in another context than its command")
        incoming = self._incoming
        if incoming is not None:
            if incoming.size_bytes + end - start > self._limits.max_instance_bytes:
                raise ProtocolError("an instance longer than allowed", statuses.NO_ABORT_REASON)
            try:
                incoming.add(self._view[start:end])
            except OSError as error:
                self._give_up(incoming, error)
        if last:
            self._finish_store(self._command)

    def _finish_store(self, command: Command) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            self._status = storage.store(self._handler, incoming)
        self._command = None
        self._respond(command, self._status)
        self.idle_since = time.monotonic()

    def _write_out(self, incoming: storage.Incoming) -> None:
        try:
            incoming.flush()
        except OSError as error:
            self._give_up(incoming, error)

    def _give_up(self, incoming: storage.Incoming, error: OSError) -> None:
        """The rest of the dataset is read and thrown away, then the peer is told."""
        self._incoming = None
        incoming.discard()
        self._status = storage.failure_status(error)

    def _respond(self, command: Command, status: int) -> None:
        # One send per response: header and body apart would wait for each other's acknowledgement.
        try:
            self._sock.sendall(command.response(self._context_id, status))
        except OSError as error:
            raise PeerGone("connection broken") from error

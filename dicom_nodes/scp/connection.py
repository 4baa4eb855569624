"""One accepted connection: its socket options, its time-outs, and how it ends."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable

from dicom_nodes.scp.commands import PeerGone
from dicom_nodes.scp.fast_path import Connection
from dicom_nodes.scp.settings import ServerSettings

_LINGER_S = 1.0
_SETTLED_S = 0.5


class Served:
    """One accepted connection: its socket, and how to end it from outside."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self.sock = sock
        self.address = address
        self.connection: Connection | None = None
        self.abort: Callable[[], None] | None = None

    @property
    def settled(self) -> bool:
        """True when no message has been under way for a while."""
        idle_since = self.connection.idle_since if self.connection else None
        return idle_since is not None and time.monotonic() - idle_since > _SETTLED_S

    def prepare(self, settings: ServerSettings) -> None:
        """Set socket options and, where configured, shake hands for TLS.

        Raises:
            OSError: no TLS connection came about in time.
        """
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if settings.tls is not None:
            self.sock.settimeout(settings.acse_timeout_s)
            self.sock = settings.tls.wrap_socket(self.sock, server_side=True)
        self.set_timeout(settings.acse_timeout_s)

    def set_timeout(self, timeout_s: float) -> None:
        """Bound every wait on the socket.

        The kernel's time-out saves the poll (and the two switches of the interpreter lock) that
        Python's own makes before each read; TLS sockets have Python's only.
        """
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.settimeout(timeout_s)
            return
        self.sock.settimeout(None)
        timeval = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6) or 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)

    def receive_exactly(self, count: int) -> bytes:
        """Read `count` bytes.

        Raises:
            PeerGone: the connection ended or was silent for too long.
        """
        data = bytearray()
        while len(data) < count:
            try:
                piece = self.sock.recv(count - len(data))
            except OSError as error:
                raise PeerGone("no A-ASSOCIATE-RQ in time") from error
            if not piece:
                raise PeerGone("connection closed before association")
            data += piece
        return bytes(data)

    def last_words(self, pdu: bytes) -> None:
        """Send a final PDU and let the peer close first, so that a reset does not swallow it."""
        with contextlib.suppress(OSError):
            self.set_timeout(_LINGER_S)
            self.sock.sendall(pdu)
            self.sock.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + _LINGER_S
            while self.sock.recv(1 << 16) and time.monotonic() < deadline:
                pass

    def end(self) -> None:
        """Make the serving thread finish."""
        if self.abort is not None:
            self.abort()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Close the socket; safe to repeat."""
        with contextlib.suppress(OSError):
            self.sock.close()

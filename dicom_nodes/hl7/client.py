"""Sending one HL7 message over MLLP: connect, send, wait for the acknowledgement, hang up.

A connection a message: there is no state to lose, a receiver that restarts is simply met again, and
the one outstanding message is the one the outbox has in hand.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dicom_nodes.errors import PeerUnavailable
from dicom_nodes.hl7 import mllp

MAX_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True)
class Receiver:
    """Where to send."""

    name: str
    host: str
    port: int
    tls: ssl.SSLContext | None = None
    timeout_s: float = 30.0
    """For connecting, and again for everything until the answer."""


def send(receiver: Receiver, message: bytes, is_answer: Callable[[bytes], bool]) -> None:
    """Send a message and wait until `is_answer` takes an answer for its own.

    Raises:
        PeerUnavailable: no connection, it broke, or no answer came in time.
        NodeError: whatever `is_answer` raises of an answer.
    """
    with _connected(receiver) as connection:
        deadline = time.monotonic() + receiver.timeout_s
        try:
            connection.sendall(mllp.frame(message))
            for answer in _answers(connection, deadline, receiver):
                if is_answer(answer):
                    return
        except OSError as error:
            raise PeerUnavailable(
                f"{receiver.name}: no acknowledgement ({_said(error)}); will send it again"
            ) from error


def check(receiver: Receiver) -> None:
    """Return when the receiver takes a connection.

    Raises:
        PeerUnavailable: it does not.
    """
    with _connected(receiver):
        pass


@contextlib.contextmanager
def _connected(receiver: Receiver) -> Iterator[socket.socket]:
    try:
        plain = socket.create_connection((receiver.host, receiver.port), receiver.timeout_s)
        connection = plain
        if receiver.tls is not None:
            try:
                connection = receiver.tls.wrap_socket(plain, server_hostname=receiver.host)
            except OSError:
                plain.close()
                raise
    except OSError as error:
        raise PeerUnavailable(
            f"{receiver.name}: cannot connect ({_said(error)}); "
            "check address, port, TLS and that the receiver runs"
        ) from error
    with connection:
        yield connection


def _answers(connection: socket.socket, deadline: float, receiver: Receiver) -> Iterator[bytes]:
    """Frames as they come, split over reads or several in one."""
    buffer = b""
    while True:
        while mllp.END in buffer:
            one, buffer = buffer.split(mllp.END, 1)
            yield one.partition(mllp.START)[2] or one
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(left)
        received = connection.recv(65536)
        if not received:
            raise ConnectionError("the receiver hung up")
        buffer += received
        if len(buffer) > MAX_ANSWER_BYTES:
            raise ConnectionError(f"{receiver.name} answers without end")


def _said(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return error.strerror or type(error).__name__

"""The listener and the client, on the wire: limits, slow and rude peers, TLS, a clean stop."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from factories import certificates
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_nodes import tls
from dicom_nodes.errors import NodeConfigError, PeerUnavailable
from dicom_nodes.hl7 import client, mllp
from dicom_nodes.hl7.client import Receiver
from dicom_nodes.hl7.server import Handler, MllpServer, MllpSettings

DEADLINE_S = 10.0


def echo(message: bytes, _peer: str) -> Sequence[bytes]:
    """Answer with the message."""
    return [message]


@contextmanager
def listening(handler: Handler = echo, **values: object) -> Iterator[tuple[MllpServer, list[str]]]:
    """A listener, and why it ended connections."""
    ended: list[str] = []
    limits = MllpSettings(**values)  # type: ignore[arg-type]
    server = MllpServer(limits, handler, lambda why, _peer: ended.append(why))
    server.start()
    try:
        yield server, ended
    finally:
        server.stop(2)


@contextmanager
def connected(server: MllpServer) -> Iterator[socket.socket]:
    """A plain connection to it."""
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as connection:
        yield connection


def received(connection: socket.socket, count: int = 1) -> list[bytes]:
    """So many frames; fewer when the listener hangs up."""
    buffer = b""
    while buffer.count(mllp.END) < count:
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            break
        if not more:
            break
        buffer += more
    return [frame[1:] for frame in buffer.split(mllp.END)[:-1]]


def until(condition: Callable[[], bool]) -> None:
    """Wait for it, with a deadline."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def test_messages_of_a_connection_are_answered_in_order() -> None:
    """Split over writes, several in one write, line ends between them."""
    with listening() as (server, _), connected(server) as peer:
        peer.sendall(b"\x0bone")
        peer.sendall(b"\x1c\r\r\n\x0btwo\x1c\r\x0bthree\x1c")
        peer.sendall(b"\r")

        assert received(peer, 3) == [b"one", b"two", b"three"]


@pytest.mark.parametrize(
    ("values", "sent", "why"),
    [
        ({"max_message_bytes": 100}, b"\x0b" + b"x" * 500, "message too large"),
        ({"max_message_bytes": 100}, b"\x0b" + b"x" * 500 + b"\x1c\r", "message too large"),
        ({"message_timeout_s": 0.2}, b"\x0bslow", "message took too long"),
        ({"idle_timeout_s": 0.2}, b"\r\n", "idle too long"),
        ({}, b"GET / HTTP/1.1\r\n\r\n", "not MLLP"),
        ({"allowed_networks": ("10.0.0.0/8",)}, b"", "not in allowed_networks"),
    ],
)
def test_a_limit_ends_the_connection(values: dict[str, object], sent: bytes, why: str) -> None:
    """No peer keeps a slot or memory that is not its own, and others are served meanwhile."""
    with listening(**values) as (server, ended), connected(server) as peer:
        peer.sendall(sent)

        assert received(peer) == []
        until(lambda: server.connections == 0)
        assert ended == [why]


def test_a_byte_now_and_then_does_not_keep_a_slot() -> None:
    """The deadline is of the whole message, not of the next byte."""
    with listening(message_timeout_s=0.4) as (server, ended), connected(server) as peer:
        peer.sendall(b"\x0b")
        end = time.monotonic() + DEADLINE_S
        while not ended and time.monotonic() < end:
            peer.sendall(b"x")
            threading.Event().wait(0.05)

        assert ended == ["message took too long"]


def test_connections_over_the_limit_are_refused() -> None:
    """Those that are served stay served; a slot that is free again is given away."""
    with listening(max_connections=1) as (server, ended):
        with connected(server) as first:
            first.sendall(mllp.frame(b"a"))
            assert received(first) == [b"a"]
            with connected(server) as second:
                assert received(second) == []
            assert ended == ["too many connections"]
            first.sendall(mllp.frame(b"b"))
            assert received(first) == [b"b"]
        until(lambda: server.connections == 0)
        with connected(server) as third:
            third.sendall(mllp.frame(b"c"))
            assert received(third) == [b"c"]


def test_a_message_that_cannot_be_handled_is_not_answered() -> None:
    """The connection is closed, so that the sender sends again."""

    def broken(_message: bytes, _peer: str) -> Sequence[bytes]:
        raise OSError("the record is away")

    with listening(broken) as (server, ended), connected(server) as peer:
        peer.sendall(mllp.frame(b"x"))

        assert received(peer) == []
        assert ended == ["not handled (OSError)"]


def test_stop_lets_the_message_in_hand_be_answered() -> None:
    """What was taken is acknowledged; idle connections are closed; nobody connects any more."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(message: bytes, _peer: str) -> Sequence[bytes]:
        begun.set()
        assert go_on.wait(DEADLINE_S)
        return [message]

    server = MllpServer(MllpSettings(), slow)
    server.start()
    port = server.port
    with connected(server) as peer, connected(server) as idle:
        peer.sendall(mllp.frame(b"last"))
        assert begun.wait(DEADLINE_S)
        stopping = threading.Thread(target=server.stop, args=(DEADLINE_S,))
        stopping.start()
        go_on.set()

        assert received(peer) == [b"last"]
        stopping.join(DEADLINE_S)
        assert not stopping.is_alive()
        assert received(idle) == []
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 1)


def test_a_taken_port_is_told() -> None:
    """With the address and what to do."""
    with listening() as (server, _):
        second = MllpServer(MllpSettings(port=server.port), echo)
        with pytest.raises(NodeConfigError, match="cannot listen"):
            second.start()


@pytest.fixture(scope="module")
def shared() -> Iterator[MllpServer]:
    """One listener for all examples."""
    with listening(max_message_bytes=2000, message_timeout_s=0.05, idle_timeout_s=0.05) as (
        server,
        _,
    ):
        yield server


@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=200))
def test_every_input_ends_in_an_answer_or_a_close(shared: MllpServer, content: bytes) -> None:
    """Whatever the bytes: nothing hangs, and the listener goes on."""
    with connected(shared) as peer:
        peer.settimeout(DEADLINE_S)
        peer.sendall(b"\x0b" + content)
        peer.shutdown(socket.SHUT_WR)
        received(peer, 1000)  # returns when the listener hung up


def receiver(port: int, **values: object) -> Receiver:
    """The peer of the client."""
    return Receiver(
        **{"name": "engine", "host": "127.0.0.1", "port": port, "timeout_s": 5, **values}
    )  # type: ignore[arg-type]


def test_the_client_waits_for_the_answer_to_its_message() -> None:
    """An answer to another message is passed over."""

    def late(message: bytes, _peer: str) -> Sequence[bytes]:
        return [b"older", message]

    with listening(late) as (server, _):
        client.send(receiver(server.port), b"mine", lambda answer: answer == b"mine")


def test_no_answer_is_transient() -> None:
    """Silence, a hang-up and a closed port: the message is sent again later."""

    def silent(_message: bytes, _peer: str) -> Sequence[bytes]:
        return []

    with listening(silent) as (server, _):
        with pytest.raises(PeerUnavailable, match="timed out") as caught:
            client.send(receiver(server.port, timeout_s=0.2), b"x", lambda _answer: True)
        assert not caught.value.permanent
        client.check(receiver(server.port))
        port = server.port
    with pytest.raises(PeerUnavailable, match="cannot connect"):
        client.send(receiver(port), b"x", lambda _answer: True)


def test_tls_on_both_sides(tmp_path: Path) -> None:
    """With the right authority it works; a plain client gets nothing."""
    certificate, key = certificates.self_signed(tmp_path)
    secure = tls.server_context(certificate, key)
    with listening(tls=secure) as (server, _):
        ours = receiver(server.port, host="localhost", tls=tls.client_context(certificate))
        client.send(ours, b"secret", lambda answer: answer == b"secret")
        with pytest.raises(PeerUnavailable):
            client.send(receiver(server.port, timeout_s=2), b"x", lambda _answer: True)

"""Whatever a peer sends, the server answers or aborts, keeps nothing broken and serves the next."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import wire
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dicom_nodes import headers
from dicom_nodes.received import Peer
from dicom_nodes.scp import commands, fast_path, negotiation

CONTEXTS = {
    1: negotiation.Context(wire.VERIFICATION, wire.IMPLICIT),
    3: negotiation.Context(wire.CT, wire.EXPLICIT),
}
LIMITS = fast_path.Limits(
    max_pdu=4096,
    network_timeout_s=2,
    dimse_timeout_s=2,
    idle_timeout_s=2,
    max_instance_bytes=1 << 20,
)
ENDS = (commands.PeerGone, commands.ProtocolError)

uids = st.from_regex(r"\A[0-9.]{0,20}\Z")
store_commands = st.builds(wire.store_rq, st.sampled_from([wire.CT, wire.MR, ""]), uids)
payloads = st.one_of(st.binary(max_size=600), store_commands, st.just(wire.echo_rq()))
values = st.builds(
    wire.pdv,
    st.sampled_from([1, 3, 5, 255]),
    st.integers(0, 255),
    payloads,
    st.one_of(st.none(), st.none(), st.none(), st.integers(0, 2**32 - 1)),
)
pdus = st.builds(
    wire.pdu,
    st.sampled_from([4, 4, 4, 4, 1, 2, 5, 6, 7, 0, 255]),
    st.one_of(st.lists(values, max_size=4).map(b"".join), st.binary(max_size=300)),
    st.one_of(st.none(), st.none(), st.none(), st.integers(0, 2**32 - 1)),
)
streams = st.lists(pdus, max_size=6).map(b"".join)
sane_values = st.builds(wire.pdv, st.just(3), st.sampled_from([0, 2]), st.binary(max_size=300))


@pytest.fixture
def keeper(tmp_path: Path) -> wire.Keeper:
    """A handler that keeps what it gets."""
    return wire.Keeper(tmp_path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(streams, st.binary(max_size=2000)), cuts=st.lists(st.integers(1, 500)))
@example(data=wire.p_data(wire.pdv(3, 3, wire.store_rq(wire.CT, "1.2"))) * 2, cuts=[])
def test_any_bytes_end_in_order(keeper: wire.Keeper, data: bytes, cuts: list[int]):
    """The data phase ends by release or by one of its two errors, and leaves no file behind."""
    serve(keeper, data, cuts)

    assert list(keeper.incoming.iterdir()) == []


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.binary(max_size=900), min_size=1, max_size=8),
    cuts=st.lists(st.integers(1, 700)),
)
def test_any_cutting_of_a_good_stream_keeps_the_same_bytes(
    keeper: wire.Keeper, pieces: list[bytes], cuts: list[int]
):
    """PDV, PDU and segment boundaries carry no meaning."""
    stream = wire.p_data(wire.pdv(3, 3, wire.store_rq(wire.CT, "1.2")))
    for i, piece in enumerate(pieces):
        stream += wire.p_data(wire.pdv(3, wire.LAST if i == len(pieces) - 1 else 0, piece))
    serve(keeper, stream + wire.RELEASE_RQ, cuts)

    instance = keeper.received.pop()
    assert keeper.kept.pop("1.2")[instance.dataset_offset :] == b"".join(pieces)


@settings(max_examples=300)
@given(data=st.binary(max_size=400))
@example(data=wire.associate_rq()[74:])
def test_any_proposal_is_decided_or_refused(data: bytes):
    """An A-ASSOCIATE-RQ of garbage raises InvalidRequest, nothing else."""
    request = wire.associate_rq()[:74] + data
    try:
        negotiated = negotiation.negotiate(request, 131072)
    except negotiation.InvalidRequest:
        return
    assert negotiated.answer[0] == 2


@settings(max_examples=300)
@given(position=st.integers(74, len(wire.associate_rq()) - 1), value=st.integers(0, 255))
def test_a_damaged_proposal_is_decided_or_refused(position: int, value: int):
    """One changed byte in a good A-ASSOCIATE-RQ raises InvalidRequest or nothing."""
    request = bytearray(wire.associate_rq())
    request[position] = value
    with contextlib.suppress(negotiation.InvalidRequest):
        negotiation.negotiate(bytes(request), 131072)


@settings(max_examples=300)
@given(data=st.binary(max_size=400))
def test_any_command_set_is_parsed_or_refused(data: bytes):
    """A command set of garbage raises ProtocolError, nothing else."""
    try:
        command = commands.Command.parse(data)
    except commands.ProtocolError:
        return
    assert len(command.response(1, 0)) > 20


elements = st.builds(
    lambda tag, vr, value, length: (
        struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        + vr
        + struct.pack("<H", len(value) if length is None else length)
        + value
    ),
    st.one_of(st.sampled_from(headers.TAGS), st.integers(0, 2**32 - 1)),
    st.one_of(
        st.sampled_from([b"UI", b"SQ", b"UN", b"OB", b"LO"]), st.binary(min_size=2, max_size=2)
    ),
    st.binary(max_size=40),
    st.one_of(st.none(), st.integers(0, 65535)),
)


@settings(max_examples=500)
@given(
    data=st.one_of(st.binary(max_size=300), st.lists(elements, max_size=10).map(b"".join)),
    syntax=st.sampled_from([wire.EXPLICIT, wire.IMPLICIT, "1.2.840.10008.1.2.2", headers.DEFLATED]),
    whole=st.booleans(),
)
def test_any_dataset_is_scanned_or_unsure(data: bytes, syntax: str, whole: bool):
    """The header scan returns a header or says that it is unsure; nothing else."""
    with contextlib.suppress(headers.UnsureHeader):
        headers.scan(data, syntax, whole=whole)


def serve(keeper: wire.Keeper, data: bytes, cuts: list[int]) -> None:
    """Run the data phase over a socket pair: the peer sends `data` in pieces, then closes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
        sender = threading.Thread(target=_send, args=(theirs, data, cuts))
        sender.start()
        connection = fast_path.Connection(ours, CONTEXTS, keeper, Peer("A", "B", ""), LIMITS)
        connection._quick_ack = None  # no TCP here
        try:
            connection.serve()
        except ENDS:
            pass
        finally:
            ours.close()
            sender.join()


def _send(sock: socket.socket, data: bytes, cuts: list[int]) -> None:
    try:
        for piece in _pieces(data, cuts):
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
    except OSError:
        pass  # the server was done first


def _pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    start = 0
    for cut in cuts:
        yield data[start : start + cut]
        start += cut
    yield data[start:]

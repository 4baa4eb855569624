"""The fast path keeps exactly the bytes sent, and survives peers that break the protocol."""

from __future__ import annotations

import errno
import os
import struct
import time
from pathlib import Path

import pydicom
import pytest
from factories import dicom, peers, wire

from dicom_nodes import statuses

UID = "1.2.3.4.5"
COMMAND = wire.pdv(3, wire.COMMAND | wire.LAST, wire.store_rq(wire.CT, UID))


@pytest.fixture
def keeper(tmp_path: Path) -> wire.Keeper:
    """A handler that keeps what it gets."""
    return wire.Keeper(tmp_path)


def test_an_instance_arrives_byte_by_byte_as_sent(keeper: wire.Keeper):
    """The file holds our file meta and then the dataset's bytes, unchanged."""
    (ds,) = dicom.ct_series(1)
    data = wire.encode(ds)
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        status = peer.store(data, wire.CT, ds.SOPInstanceUID)
        released = peer.release()

    (instance,) = keeper.received
    file = keeper.kept[ds.SOPInstanceUID]
    assert (status, released) == (0x0000, 6)
    assert file[instance.dataset_offset :] == data
    assert instance.head == data[: 1 << 16]
    assert instance.size_bytes == len(file)


def test_the_file_is_a_readable_part_10_file(keeper: wire.Keeper):
    """Its file meta names class, instance and accepted transfer syntax."""
    (ds,) = dicom.ct_series(1)
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        peer.store(wire.encode(ds), wire.CT, ds.SOPInstanceUID)

    read = pydicom.dcmread(pydicom.filebase.DicomBytesIO(keeper.kept[ds.SOPInstanceUID]))
    assert read.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert read.file_meta.MediaStorageSOPClassUID == wire.CT
    assert read.file_meta.TransferSyntaxUID == wire.EXPLICIT
    assert read.PixelData == ds.PixelData


@pytest.mark.parametrize("pdv_bytes", [1, 7, 4096, 120_000])
def test_fragment_size_does_not_matter(keeper: wire.Keeper, pdv_bytes: int):
    """The same bytes are kept however the peer cuts them."""
    data = os.urandom(3000 if pdv_bytes < 100 else 400_000)
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        status = peer.store(data, wire.CT, UID, pdv_bytes=pdv_bytes)

    (instance,) = keeper.received
    assert status == 0
    assert keeper.kept[UID][instance.dataset_offset :] == data


def test_bytes_may_arrive_one_at_a_time(keeper: wire.Keeper):
    """PDU and TCP segment boundaries are independent."""
    data = wire.p_data(COMMAND) + wire.p_data(wire.pdv(3, wire.LAST, b"0123456789"))
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        for i in range(len(data)):
            peer.send(data[i : i + 1])
        status = peer.status()

    assert status == 0
    assert keeper.kept[UID].endswith(b"0123456789")


def test_command_and_dataset_may_share_a_pdu(keeper: wire.Keeper):
    """Several presentation data values in one P-DATA-TF are all seen."""
    pdu = wire.p_data(COMMAND, wire.pdv(3, 0, b"01"), wire.pdv(3, 0), wire.pdv(3, wire.LAST, b"23"))
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        peer.send(pdu)
        status = peer.status()

    assert status == 0
    assert keeper.kept[UID].endswith(b"0123")


def test_a_command_may_come_in_fragments(keeper: wire.Keeper):
    """A command set cut into three fragments is put together."""
    encoded = wire.store_rq(wire.CT, UID)
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        peer.send(wire.p_data(wire.pdv(3, wire.COMMAND, encoded[:5])))
        peer.send(wire.p_data(wire.pdv(3, wire.COMMAND, encoded[5:40])))
        peer.send(wire.p_data(wire.pdv(3, wire.COMMAND | wire.LAST, encoded[40:])))
        peer.send(wire.p_data(wire.pdv(3, wire.LAST, b"data")))
        status = peer.status()

    assert status == 0


def test_echo_is_answered_between_stores(keeper: wire.Keeper):
    """C-ECHO and C-STORE share an association."""
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        answers = [peer.echo(), peer.store(b"data", wire.CT, UID), peer.echo()]

    assert answers == [0, 0, 0]


def test_a_response_repeats_message_id_and_uids(keeper: wire.Keeper):
    """The peer can match the response to its request (PS3.7 9.3.1.2)."""
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        request = wire.store_rq(wire.CT, UID, message_id=4711)
        peer.send(wire.p_data(wire.pdv(3, 3, request), wire.pdv(3, wire.LAST, b"data")))
        _, body = peer.receive()

    response = wire.parse_command(body[6:])
    length, context_id, control = struct.unpack(">LBB", body[:6])
    assert (length, context_id, control) == (len(body) - 4, 3, 3)
    assert response[0x0000] == struct.pack("<L", len(body) - 6 - 12)
    assert response[0x0100] == struct.pack("<H", 0x8001)
    assert response[0x0120] == struct.pack("<H", 4711)
    assert response[0x0800] == struct.pack("<H", 0x0101)
    assert response[0x0002].rstrip(b"\0") == wire.CT.encode()
    assert response[0x1000].rstrip(b"\0") == UID.encode()


def test_a_refused_instance_is_read_and_thrown_away(keeper: wire.Keeper, tmp_path: Path):
    """After a refusal in `admit` the association goes on, and nothing was written."""
    keeper.admission = statuses.OUT_OF_RESOURCES
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        status = peer.store(os.urandom(500_000), wire.CT, UID)
        keeper.admission = 0
        after = peer.store(b"data", wire.CT, "1.2.3.9")

    assert (status, after) == (0xA700, 0)
    assert list(keeper.kept) == ["1.2.3.9"]
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_is_not_the_contexts_is_refused(keeper: wire.Keeper):
    """An MR under the CT context gets 0x0122 and is not kept."""
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        status = peer.store(b"data", wire.MR, UID, context_id=3)

    assert status == 0x0122
    assert keeper.kept == {}


@pytest.mark.parametrize(("sop_class", "uid"), [("", UID), (wire.CT, "")])
def test_a_command_without_uids_is_refused(keeper: wire.Keeper, sop_class: str, uid: str):
    """Without class or instance UID there is nothing to keep under: 0xC002."""
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        status = peer.store(b"data", sop_class, uid)

    assert status == 0xC002


def test_a_store_without_dataset_is_answered(keeper: wire.Keeper):
    """A C-STORE-RQ that announces no dataset gets a failure, not silence."""
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        peer.send(wire.p_data(wire.pdv(3, 3, wire.store_rq(wire.CT, UID, dataset=False))))
        status = peer.status()
        again = peer.echo()

    assert (status, again) == (0xC004, 0)


def test_a_handler_that_fails_costs_one_instance(keeper: wire.Keeper, tmp_path: Path):
    """An exception in the handler becomes 0x0110; file removed, association alive."""

    def explode(_instance: object) -> int:
        raise RuntimeError("no")

    keeper.store = explode  # type: ignore[method-assign]
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        status = peer.store(b"data", wire.CT, UID)
        again = peer.echo()

    assert (status, again) == (0x0110, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, 0xA700), (errno.EDQUOT, 0xA700), (errno.EIO, 0x0110)]
)
def test_a_failing_disk_is_told_and_nothing_is_left(
    keeper: wire.Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: int
):
    """A write that fails in the middle drains the dataset, answers, removes the file."""

    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", full)
            status = peer.store(os.urandom(900_000), wire.CT, UID)
        again = peer.store(b"data", wire.CT, "1.2.3.9")

    assert (status, again) == (expected, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_partly_taken_write_is_completed(keeper: wire.Keeper, monkeypatch: pytest.MonkeyPatch):
    """os.writev may take less than all; the rest follows."""
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, pieces: real(fd, [pieces[0][:100]]))
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        status = peer.store(b"0123456789", wire.CT, UID)

    assert status == 0
    assert keeper.kept[UID].endswith(b"0123456789")
    assert keeper.kept[UID][128:132] == b"DICM"


BROKEN = {
    "a dataset without command": wire.p_data(wire.pdv(3, wire.LAST, b"data")),
    "a command where a dataset is due": wire.p_data(COMMAND, COMMAND),
    "a context never proposed": wire.p_data(wire.pdv(99, 3, wire.echo_rq())),
    "a dataset in another context": wire.p_data(COMMAND, wire.pdv(5, wire.LAST, b"data")),
    "a value longer than its PDU": wire.p_data(wire.pdv(3, 3, b"1234", length=4000)),
    "a value of length 0": wire.p_data(wire.pdv(3, 3, b"", length=0)),
    "a value of length 1": wire.p_data(wire.pdv(3, 3, b"", length=1)),
    "a cut off value": wire.p_data(wire.pdv(1, 1, b"12345678") + b"\0\0\0"),
    "an empty P-DATA-TF": wire.pdu(4, b""),
    "a giant P-DATA-TF": wire.pdu(4, b"", length=0xFFFFFFFF),
    "a PDU just too long": wire.pdu(4, b"", length=131073),
    "a command that is cut off": wire.p_data(wire.pdv(3, 3, wire.store_rq(wire.CT, UID)[:-3])),
    "a command of garbage": wire.p_data(wire.pdv(3, 3, os.urandom(64))),
    "an empty command": wire.p_data(wire.pdv(3, 3, b"")),
    "a response instead of a request": wire.p_data(
        wire.pdv(3, 3, wire.command(e0100=b"\x01\x80", e0120=b"\1\0", e0800=b"\1\1"))
    ),
    "a C-FIND": wire.p_data(
        wire.pdv(3, 3, wire.command(e0100=b"\x20\0", e0110=b"\1\0", e0800=b"\0\0"))
    ),
    "a second A-ASSOCIATE-RQ": wire.associate_rq(),
    "an A-ASSOCIATE-AC": wire.pdu(2, b"\0" * 68),
    "an A-RELEASE-RP": wire.pdu(6, b"\0" * 4),
    "a PDU type that does not exist": wire.pdu(0x42, b"abcd"),
    "a release that is too long": wire.pdu(5, b"\0" * 40),
    "an abort that is too short": wire.pdu(7, b"\0"),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_protocol_is_aborted(keeper: wire.Keeper, tmp_path: Path, data: bytes):
    """The peer gets an A-ABORT of the provider; nothing is kept, the next peer is served."""
    with wire.serving(keeper) as server:
        with wire.Peer(server.port) as peer:
            peer.associate()
            peer.send(data)
            kind, body = peer.receive()
            end, _ = peer.receive()
        with wire.Peer(server.port) as other:
            other.associate()
            served = other.echo()
            other.release()

    assert (kind, body[2], end) == (7, 2, 0)
    assert served == 0
    assert keeper.kept == {}
    assert list(tmp_path.iterdir()) == []
    assert sorted(keeper.closed) == [False, True]  # the two end in threads of their own


def test_a_command_without_end_is_aborted(keeper: wire.Keeper):
    """Command fragments may not fill the memory."""
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        for _ in range(3):
            peer.send(wire.p_data(wire.pdv(3, wire.COMMAND, b"\0" * 30_000)))
        kind, _ = peer.receive()

    assert kind == 7


def test_an_instance_without_end_is_aborted(keeper: wire.Keeper, tmp_path: Path):
    """A dataset beyond the configured size is not written to the end of the disk."""
    with (
        wire.serving(keeper, max_instance_bytes=200_000) as server,
        wire.Peer(server.port) as peer,
    ):
        peer.associate()
        peer.send(wire.p_data(COMMAND))
        for _ in range(3):
            peer.send(wire.p_data(wire.pdv(3, 0, b"\0" * 100_000)))
        kind, _ = peer.receive()

    assert kind == 7
    assert list(tmp_path.iterdir()) == []


ENDINGS = {
    "an abort": lambda peer: peer.send(wire.ABORT),
    "a closed connection": lambda peer: peer.sock.close(),
    "a reset connection": lambda peer: (
        peer.sock.setsockopt(1, 13, struct.pack("ii", 1, 0)),
        peer.sock.close(),
    ),
    "a release": lambda peer: peer.send(wire.RELEASE_RQ),
    "half a PDU": lambda peer: (peer.send(wire.pdu(4, b"123", length=900)), peer.sock.close()),
}


@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS.keys())
def test_an_association_that_ends_inside_a_dataset_leaves_nothing(
    keeper: wire.Keeper, tmp_path: Path, end: object
):
    """No instance, no temporary file, no place taken."""
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate()
        peer.send(wire.p_data(COMMAND, wire.pdv(3, 0, os.urandom(50_000))))
        peers.wait_for("the dataset's beginning", lambda: list(tmp_path.iterdir()))
        end(peer)  # type: ignore[operator]
        peers.wait_for("the end", lambda: server.active_associations == 0)

    assert keeper.kept == {}
    assert list(tmp_path.iterdir()) == []


STALLS = {
    "inside a PDU": wire.p_data(COMMAND)[:20],
    "inside a dataset": wire.p_data(COMMAND),
    "between messages": b"",
}


@pytest.mark.parametrize("data", STALLS.values(), ids=STALLS.keys())
def test_a_peer_that_stalls_loses_its_place(keeper: wire.Keeper, data: bytes):
    """The socket's own time-out frees the association (pynetdicom's would not)."""
    with (
        wire.serving(keeper, network_timeout_s=0.2, idle_timeout_s=0.3) as server,
        wire.Peer(server.port) as peer,
    ):
        peer.associate()
        peer.send(data)
        peers.wait_for("the place to be freed", lambda: server.active_associations == 0, 5)

    assert keeper.closed == [True]


def test_a_peer_that_drips_single_bytes_loses_its_place(keeper: wire.Keeper):
    """One PDU may not take for ever, even if some byte always comes in time."""
    with (
        wire.serving(keeper, network_timeout_s=5, dimse_timeout_s=0.3) as server,
        wire.Peer(server.port) as peer,
    ):
        peer.associate()
        drip = wire.pdu(4, b"", length=1000)
        deadline = time.monotonic() + 10
        for i in range(1000):
            try:
                peer.send(drip[i % 6 : i % 6 + 1] if i < 6 else b"\0")
            except OSError:
                break
            if server.active_associations == 0 or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        peers.wait_for("the place to be freed", lambda: server.active_associations == 0, 5)

    assert keeper.closed == [True]


def test_a_quiet_peer_keeps_its_place_for_the_idle_time(keeper: wire.Keeper):
    """Between messages the idle time-out counts, not the shorter network time-out."""
    with (
        wire.serving(keeper, network_timeout_s=0.1, idle_timeout_s=30) as server,
        wire.Peer(server.port) as peer,
    ):
        peer.associate()
        time.sleep(0.35)
        status = peer.echo()

    assert status == 0

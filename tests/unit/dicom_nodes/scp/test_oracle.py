"""Both engines keep the same bytes and answer the same: pynetdicom is the fast path's oracle."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from factories import dicom, dicom_compressed, wire
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt

from dicom_nodes import identifiers
from dicom_nodes.scp.server import StorageServer

ENGINES = ("fast", "pynetdicom")
PRIVATE_CLASS = "1.3.12.2.1107.5.9.1"
FUTURE_CLASS = "1.2.840.10008.5.1.4.1.1.999.1"
SYNTAXES = (ExplicitVRLittleEndian, *dicom_compressed.LOSSLESS)


def send(server: StorageServer, ds: Dataset, max_pdu: int = 16382) -> tuple[int, bytes]:
    """Send one instance with pynetdicom; return the status and the dataset's bytes as sent."""
    sent = bytearray()

    def note(event: evt.Event) -> None:
        for item in event.pdu.presentation_data_value_items if event.pdu.pdu_type == 4 else ():
            value = item.presentation_data_value
            if not value[0] & 1:
                sent.extend(value[1:])

    ae = AE(ae_title="SENDER")
    ae.maximum_pdu_size = max_pdu
    ae.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
    association = ae.associate(
        "127.0.0.1", server.port, evt_handlers=[(evt.EVT_PDU_SENT, note)], max_pdu=max_pdu
    )
    assert association.is_established
    status = association.send_c_store(ds)
    association.release()
    return status.Status, bytes(sent)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=[uid.name for uid in SYNTAXES])
def test_both_engines_keep_the_same_file_in_every_syntax(tmp_path: Path, syntax: str):
    """The file is byte-equal, and its dataset is what went over the wire."""
    ds = (
        dicom_compressed.compress(dicom.ct_series(1)[0], syntax)
        if (syntax != ExplicitVRLittleEndian)
        else dicom.ct_series(1)[0]
    )
    files = {}
    for engine in ENGINES:
        keeper = wire.Keeper(tmp_path)
        with wire.serving(keeper, engine=engine) as server:
            status, sent = send(server, ds)
        (instance,) = keeper.received
        files[engine] = keeper.kept[ds.SOPInstanceUID]
        assert status == 0
        assert files[engine][instance.dataset_offset :] == sent
        assert instance.request.transfer_syntax_uid == syntax
        assert instance.head == sent[: 1 << 16]

    assert files["fast"] == files["pynetdicom"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sop_class", [PRIVATE_CLASS, FUTURE_CLASS, EncapsulatedPDFStorage])
def test_every_storage_class_is_taken(tmp_path: Path, engine: str, sop_class: str):
    """Private and unknown storage classes are kept like known ones."""
    (ds,) = dicom.ct_series(1)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    keeper = wire.Keeper(tmp_path)
    with wire.serving(keeper, engine=engine) as server:
        status, _ = send(server, ds)

    assert status == 0
    assert keeper.received[0].request.sop_class_uid == sop_class


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("failure", ["admission", "answer"])
def test_both_engines_pass_on_the_handlers_status(tmp_path: Path, engine: str, failure: str):
    """A refusal before or after the dataset reaches the sender as the handler said it."""
    keeper = wire.Keeper(tmp_path)
    setattr(keeper, failure, 0xA700)
    with wire.serving(keeper, engine=engine) as server:
        status, _ = send(server, dicom.ct_series(1)[0])

    assert status == 0xA700
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_check_the_class_against_the_context(tmp_path: Path, engine: str):
    """A command of another class than its context's gets 0x0122."""
    keeper = wire.Keeper(tmp_path)
    with wire.serving(keeper, engine=engine) as server, wire.Peer(server.port) as peer:
        peer.associate()
        status = peer.store(b"data", wire.MR, "1.2.3", context_id=3)

    assert status == 0x0122
    assert keeper.kept == {}


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_negotiate_alike(tmp_path: Path, engine: str):
    """Same accepted contexts, same syntax chosen, same maximum PDU and implementation."""
    keeper = wire.Keeper(tmp_path)
    ae = AE(ae_title="SENDER")
    ae.add_requested_context(wire.CT, [wire.IMPLICIT, wire.EXPLICIT])
    ae.add_requested_context(wire.MR, ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.50"])
    ae.add_requested_context(wire.VERIFICATION)
    ae.add_requested_context("1.2.840.10008.5.1.4.1.2.1.1")  # Patient Root FIND: not offered
    with wire.serving(keeper, engine=engine) as server:
        association = ae.associate("127.0.0.1", server.port)
        accepted = {
            str(cx.abstract_syntax): str(cx.transfer_syntax[0])
            for cx in association.accepted_contexts
        }
        acceptor = association.acceptor
        found = (acceptor.maximum_length, acceptor.implementation_class_uid)
        echo = association.send_c_echo().Status
        association.release()

    assert accepted == {
        wire.CT: wire.EXPLICIT,
        wire.MR: "1.2.840.10008.1.2.4.90",
        wire.VERIFICATION: wire.EXPLICIT,
    }
    assert found == (131072, identifiers.IMPLEMENTATION_CLASS_UID)
    assert echo == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_free_the_place_of_a_stalled_peer(tmp_path: Path, engine: str):
    """A peer that stalls inside a PDU is dropped; pynetdicom alone would wait for ever."""
    keeper = wire.Keeper(tmp_path)
    with (
        wire.serving(keeper, engine=engine, network_timeout_s=0.3, idle_timeout_s=0.3) as server,
        wire.Peer(server.port) as peer,
    ):
        peer.associate()
        peer.send(wire.pdu(4, b"\0" * 10, length=900))
        wire.peers.wait_for("the place", lambda: server.active_associations == 0, 10)

    assert keeper.closed == [True]


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_leave_nothing_of_a_broken_transfer(tmp_path: Path, engine: str):
    """An abort inside the dataset leaves no file under any name."""
    keeper = wire.Keeper(tmp_path)
    with wire.serving(keeper, engine=engine) as server, wire.Peer(server.port) as peer:
        peer.associate()
        peer.send(wire.p_data(wire.pdv(3, 3, wire.store_rq(wire.CT, "1.2.3"))))
        peer.send(wire.p_data(wire.pdv(3, 0, b"\0" * 10_000)))
        peer.send(wire.ABORT)
        wire.peers.wait_for("the end", lambda: keeper.closed, 10)

    assert keeper.kept == {}
    assert list(tmp_path.iterdir()) == []


def test_no_thread_outlives_the_server(tmp_path: Path):
    """After stop, threads of both engines are gone."""
    before = set(threading.enumerate())
    for engine in ENGINES:
        with wire.serving(wire.Keeper(tmp_path), engine=engine) as server:
            send(server, dicom.ct_series(1)[0])

    def leftovers() -> bool:
        return not {thread for thread in threading.enumerate() if thread.is_alive()} - before

    assert wire.peers.wait_for("threads to end", leftovers, 5)

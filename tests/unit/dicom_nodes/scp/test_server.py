"""Who may associate, how many at once, how the server starts and stops, and its extra services."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from factories import dicom, peers, wire
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]

from dicom_nodes import statuses, tls
from dicom_nodes.errors import NodeConfigError
from dicom_nodes.received import Peer
from dicom_nodes.scp.server import StorageServer
from dicom_nodes.scp.settings import ServerSettings, address_allowed, refusal

PEER = Peer("MODALITY", "WLAGENT", "10.1.2.3")


@pytest.fixture
def keeper(tmp_path: Path) -> wire.Keeper:
    """A handler that keeps what it gets."""
    return wire.Keeper(tmp_path)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"allowed_calling_ae": ("OTHER",)}, statuses.CALLING_AE_UNKNOWN),
        ({"allowed_calling_ae": ("OTHER", "MODALITY")}, None),
        ({"require_called_ae": True}, None),
        ({"require_called_ae": True, "ae_title": "US"}, statuses.CALLED_AE_UNKNOWN),
        ({"allowed_networks": ("10.1.0.0/16",)}, None),
        ({"allowed_networks": ("10.2.0.0/16", "10.1.2.3")}, None),
        ({"allowed_networks": ("10.2.0.0/16",)}, statuses.NO_REASON_GIVEN),
    ],
)
def test_admission_follows_the_allow_lists(settings: dict[str, Any], expected: object):
    """Empty lists allow any; a list allows its members only."""
    assert refusal(ServerSettings(**settings), PEER) is expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [("::ffff:10.1.2.3", True), ("fe80::1%eth0", False), ("10.9.9.9", False)],
)
def test_mapped_and_scoped_addresses_are_understood(address: str, expected: bool):
    """IPv4-mapped IPv6 addresses match IPv4 networks."""
    assert address_allowed(("10.1.0.0/16",), address) is expected


@pytest.mark.parametrize(
    "bad", [{"max_pdu": 100}, {"max_pdu": 2**24}, {"allowed_networks": ("10.1.0.0/33",)}]
)
def test_impossible_settings_are_refused(bad: dict[str, Any]):
    """Before the port is opened, with the setting's name."""
    with pytest.raises(NodeConfigError, match=next(iter(bad))):
        ServerSettings(**bad)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"allowed_calling_ae": ("OTHER",)}, b"\x00\x01\x01\x03"),
        ({"require_called_ae": True, "ae_title": "US"}, b"\x00\x01\x01\x07"),
        ({"allowed_networks": ("10.0.0.0/8",)}, b"\x00\x01\x01\x01"),
        ({"max_associations": 0}, b"\x00\x02\x03\x02"),
        ({"max_associations_per_peer": 0}, b"\x00\x02\x03\x02"),
    ],
)
def test_a_peer_that_may_not_is_rejected(
    keeper: wire.Keeper, settings: dict[str, Any], expected: bytes
):
    """With the result, source and reason of PS3.8 table 9-21; it never reaches the handler."""
    with wire.serving(keeper, **settings) as server, wire.Peer(server.port) as peer:
        peer.send(wire.associate_rq())
        kind, body = peer.receive()

    assert (kind, body) == (3, expected)
    assert keeper.opened == []


def test_places_are_given_back(keeper: wire.Keeper):
    """With one place, the second peer is rejected while the first is there, then served."""
    with wire.serving(keeper, max_associations=1) as server:
        with wire.Peer(server.port) as first, wire.Peer(server.port) as second:
            first.associate()
            second.send(wire.associate_rq())
            kind, _ = second.receive()
            first.release()
        peers.wait_for("the place", lambda: server.active_associations == 0)
        with wire.Peer(server.port) as third:
            third.associate()
            status = third.echo()

    assert kind == 3
    assert status == 0


def test_the_handler_learns_who_called(keeper: wire.Keeper):
    """AE titles without padding, and the network address."""
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.associate(calling="CT 1", called="ANYBODY")
        peer.release()

    assert keeper.opened == [Peer("CT 1", "ANYBODY", "127.0.0.1")]
    assert keeper.closed == [False]


def test_the_answer_repeats_the_ae_titles(keeper: wire.Keeper):
    """The same proposal from two peers gets the same answer with each one's own titles."""
    with wire.serving(keeper) as server:
        answers = []
        for name in ("ONE", "TWO"):
            with wire.Peer(server.port) as peer:
                answers.append(peer.associate(calling=name))
                peer.release()

    assert [body[20:36].strip() for body in answers] == [b"ONE", b"TWO"]
    assert answers[0][68:] == answers[1][68:]


def test_garbage_instead_of_a_request_frees_the_connection(keeper: wire.Keeper):
    """An HTTP request, a giant length and silence all end."""
    with wire.serving(keeper, acse_timeout_s=0.3) as server:
        for data in (b"GET / HTTP/1.0\r\n\r\n", wire.pdu(1, b"", length=2**31), b"", b"\x01"):
            with wire.Peer(server.port) as peer:
                peer.send(data)
                assert peer.receive() == (0, b"")


def test_a_request_that_cannot_be_decoded_is_aborted(keeper: wire.Keeper):
    """A well-framed A-ASSOCIATE-RQ of garbage gets an A-ABORT."""
    with wire.serving(keeper) as server, wire.Peer(server.port) as peer:
        peer.send(wire.pdu(1, wire.associate_rq()[6:74] + b"\x20\x00\xff\xff\x01\x00"))
        kind, _ = peer.receive()

    assert kind == 7
    assert keeper.opened == []


def test_a_port_in_use_is_named(keeper: wire.Keeper):
    """The error says which port, and what to do."""
    with wire.serving(keeper) as server:
        second = StorageServer(ServerSettings(port=server.port), keeper)
        with pytest.raises(NodeConfigError, match=str(server.port)):
            second.start()


def test_stop_lets_a_running_transfer_end(keeper: wire.Keeper):
    """What is under way is received and answered; the port is closed at once."""
    server = StorageServer(ServerSettings(port=0), keeper)
    server.start()
    port = server.port
    with wire.Peer(port) as peer:
        peer.associate()
        peer.send(wire.p_data(wire.pdv(3, 3, wire.store_rq(wire.CT, "1.2.3"))))
        import threading

        stopping = threading.Thread(target=server.stop, kwargs={"drain_s": 10})
        stopping.start()
        peers.wait_for("the port to close", lambda: not peers.listens(port))
        peer.send(wire.p_data(wire.pdv(3, wire.LAST, b"data")))
        status = peer.status()
        peer.release()
        stopping.join()

    assert status == 0
    assert list(keeper.kept) == ["1.2.3"]


@pytest.mark.parametrize("engine", ["fast", "pynetdicom"])
def test_stop_ends_a_peer_that_does_not_leave(keeper: wire.Keeper, engine: str):
    """An idle association does not hold up the shutdown."""
    server = StorageServer(ServerSettings(port=0, engine=engine), keeper)  # type: ignore[arg-type]
    server.start()
    with wire.Peer(server.port) as peer:
        peer.associate()
        peer.echo()
        started = time.monotonic()
        server.stop(drain_s=1.0)
        took_s = time.monotonic() - started

    assert took_s < 5
    assert server.active_associations == 0
    assert keeper.closed == [True]


def test_an_extra_service_shares_port_and_association(keeper: wire.Keeper):
    """A worklist query and a C-STORE on one association: pynetdicom serves both, on our socket."""
    contexts = [build_context(ModalityWorklistInformationFind)]

    def find(_event: evt.Event) -> Any:
        answer = Dataset()
        answer.PatientID = "42"
        yield 0xFF00, answer

    ae = AE(ae_title="SCANNER")
    ae.add_requested_context(ModalityWorklistInformationFind)
    ae.add_requested_context(wire.CT, wire.EXPLICIT)
    ae.add_requested_context(wire.VERIFICATION)
    (ds,) = dicom.ct_series(1)
    with wire.serving(keeper, contexts=contexts, evt_handlers=[(evt.EVT_C_FIND, find)]) as server:
        association = ae.associate("127.0.0.1", server.port)
        query = Dataset()
        query.PatientID = ""
        found = list(association.send_c_find(query, ModalityWorklistInformationFind))
        stored = association.send_c_store(ds).Status
        echo = association.send_c_echo().Status
        association.release()

    assert [status.Status for status, _ in found] == [0xFF00, 0x0000]
    assert found[0][1].PatientID == "42"
    assert (stored, echo) == (0, 0)
    assert list(keeper.kept) == [ds.SOPInstanceUID]
    assert keeper.closed == [False]


def test_storage_goes_the_fast_way_beside_an_extra_service(keeper: wire.Keeper):
    """Only associations that propose the extra service are pynetdicom's."""
    contexts = [build_context(ModalityWorklistInformationFind)]
    with wire.serving(keeper, contexts=contexts) as server, wire.Peer(server.port) as peer:
        peer.associate()
        peer.store(b"data", wire.CT, "1.2.3")
        served = [item.connection for item in server._connections.values()]

    assert None not in served


@pytest.fixture
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    openssl = peers.require(peers.find("openssl"), "openssl")
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    command = [openssl, *options.split(), *names.split(), "-keyout", key, "-out", cert]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.mark.parametrize("engine", ["fast", "pynetdicom"])
def test_instances_come_over_tls(keeper: wire.Keeper, certificate: tuple[Path, Path], engine: str):
    """Both engines serve a TLS connection with a client certificate."""
    cert, key = certificate
    ae = AE(ae_title="SENDER")
    ae.add_requested_context(wire.CT, wire.EXPLICIT)
    (ds,) = dicom.ct_series(1, rows=512, cols=512)
    with wire.serving(keeper, engine=engine, tls=tls.server_context(cert, key, ca=cert)) as server:
        context = tls.client_context(cert, cert, key)
        association = ae.associate("127.0.0.1", server.port, tls_args=(context, "localhost"))
        status = association.send_c_store(ds).Status
        association.release()

    assert status == 0
    assert ds.PixelData in keeper.kept[ds.SOPInstanceUID]


def test_a_peer_without_certificate_is_refused(keeper: wire.Keeper, certificate: tuple[Path, Path]):
    """With an authority configured, nobody without a certificate gets as far as DICOM."""
    cert, key = certificate
    with wire.serving(keeper, tls=tls.server_context(cert, key, ca=cert)) as server:
        context = tls.client_context(cert)
        raw = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        with (
            context.wrap_socket(raw, server_hostname="localhost") as secure,
            # TLS 1.3: the client learns of the refusal with its first read
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            secure.recv(10)

    assert keeper.opened == []


def test_missing_tls_files_are_named_as_configuration(tmp_path: Path):
    """Not an ssl error from the depth: a configuration error that says what to check."""
    with pytest.raises(NodeConfigError, match="certificate, key and ca"):
        tls.server_context(tmp_path / "none.pem", tmp_path / "none.key")

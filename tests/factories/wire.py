"""The DICOM upper layer by hand: PDUs as bytes, a peer that may misbehave, a handler that keeps.

with wire.serving(handler) as server, wire.Peer(server.port) as peer:
    peer.associate()
    assert peer.store(dataset_bytes, sop_class, sop_uid) == 0x0000
"""

from __future__ import annotations

import io
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from factories import peers
from pydicom.dataset import Dataset
from pydicom.filewriter import write_dataset

from dicom_nodes.received import Peer as PeerInfo
from dicom_nodes.received import ReceivedInstance, StoreRequest
from dicom_nodes.scp.server import StorageServer
from dicom_nodes.scp.settings import ServerSettings

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFAULT_CONTEXTS = ((1, VERIFICATION, (IMPLICIT,)), (3, CT, (EXPLICIT,)), (5, MR, (EXPLICIT,)))
COMMAND, LAST = 1, 2
RELEASE_RQ = b"\x05\0\0\0\0\x04\0\0\0\0"
ABORT = b"\x07\0\0\0\0\x04\0\0\0\0"

Contexts = Sequence[tuple[int, str, Sequence[str]]]


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """One PDU; `length` overrides the true one."""
    return struct.pack(">BBL", kind, 0, len(body) if length is None else length) + body


def pdv(context_id: int, control: int, data: bytes = b"", length: int | None = None) -> bytes:
    """One presentation data value; `length` overrides the true one."""
    true = len(data) + 2
    return struct.pack(">LBB", true if length is None else length, context_id, control) + data


def p_data(*values: bytes) -> bytes:
    """One P-DATA-TF."""
    return pdu(4, b"".join(values))


def associate_rq(
    contexts: Contexts = DEFAULT_CONTEXTS,
    calling: str = "PEER",
    called: str = "WLAGENT",
    max_pdu: int = 131072,
) -> bytes:
    """One A-ASSOCIATE-RQ (PS3.8 table 9-11)."""
    items = _item(0x10, b"1.2.840.10008.3.1.1.1")
    for context_id, abstract, syntaxes in contexts:
        body = bytes((context_id, 0, 0, 0)) + _item(0x30, abstract.encode())
        items += _item(0x20, body + b"".join(_item(0x40, ts.encode()) for ts in syntaxes))
    items += _item(0x50, _item(0x51, struct.pack(">L", max_pdu)) + _item(0x52, b"1.2.3"))
    ae_titles = called.encode().ljust(16) + calling.encode().ljust(16)
    return pdu(1, b"\x00\x01\x00\x00" + ae_titles + b"\0" * 32 + items)


def command(**elements: bytes) -> bytes:
    """A command set; keys are the element numbers as ``e0100`` with encoded values."""
    body = b""
    for name, value in sorted(elements.items()):
        value += b"\0" * (len(value) & 1)
        body += struct.pack("<HHL", 0, int(name[1:], 16), len(value)) + value
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def store_rq(sop_class: str, sop_uid: str, message_id: int = 1, *, dataset: bool = True) -> bytes:
    """The command set of a C-STORE-RQ."""
    return command(
        e0002=sop_class.encode(),
        e0100=struct.pack("<H", 1),
        e0110=struct.pack("<H", message_id),
        e0700=struct.pack("<H", 0),
        e0800=struct.pack("<H", 0 if dataset else 0x0101),
        e1000=sop_uid.encode(),
    )


def echo_rq(message_id: int = 1) -> bytes:
    """The command set of a C-ECHO-RQ."""
    return command(
        e0002=VERIFICATION.encode(),
        e0100=struct.pack("<H", 0x30),
        e0110=struct.pack("<H", message_id),
        e0800=struct.pack("<H", 0x0101),
    )


def encode(ds: Dataset, *, implicit: bool = False, little: bool = True) -> bytes:
    """The dataset's bytes as they go over the wire."""
    buffer: Any = io.BytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, little
    from pydicom.filebase import DicomIO

    stream = DicomIO(buffer)
    stream.is_implicit_VR, stream.is_little_endian = implicit, little
    write_dataset(stream, ds)
    return buffer.getvalue()


class Peer:
    """A service class user that sends what it is told, right or wrong."""

    def __init__(self, port: int, timeout_s: float = 10.0, address: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection(
            ("127.0.0.1", port), timeout=timeout_s, source_address=(address, 0)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """Read one PDU: (type, body); (0, b"") when the connection is closed."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxL", head)
        return kind, self._exactly(length)

    def associate(self, contexts: Contexts = DEFAULT_CONTEXTS, **names: str) -> bytes:
        """Associate and return the body of the A-ASSOCIATE-AC."""
        self.send(associate_rq(contexts, **names))
        kind, body = self.receive()
        assert kind == 2, f"not accepted: PDU type {kind}, {body!r}"
        return body

    def store(
        self,
        data: bytes,
        sop_class: str,
        sop_uid: str,
        context_id: int = 3,
        pdv_bytes: int = 16_000,
    ) -> int:
        """Send one C-STORE and return its status."""
        self.send(p_data(pdv(context_id, COMMAND | LAST, store_rq(sop_class, sop_uid))))
        for start in range(0, max(len(data), 1), pdv_bytes):
            last = LAST if start + pdv_bytes >= len(data) else 0
            self.send(p_data(pdv(context_id, last, data[start : start + pdv_bytes])))
        return self.status()

    def echo(self) -> int:
        """Send one C-ECHO and return its status."""
        self.send(p_data(pdv(1, COMMAND | LAST, echo_rq())))
        return self.status()

    def status(self) -> int:
        """Read one response and return its status."""
        kind, body = self.receive()
        assert kind == 4, f"no response: PDU type {kind}, {body!r}"
        elements = parse_command(body[6:])
        return int.from_bytes(elements[0x0900], "little")

    def release(self) -> int:
        """Release and return the type of the answer (6 = A-RELEASE-RP)."""
        self.send(RELEASE_RQ)
        return self.receive()[0]

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self.sock.recv(count - len(data))
            except ConnectionError:
                break
            if not piece:
                break
            data += piece
        return data


def parse_command(encoded: bytes) -> dict[int, bytes]:
    """Element number -> value of a command set."""
    elements, offset = {}, 0
    while offset < len(encoded):
        _, element, length = struct.unpack_from("<HHL", encoded, offset)
        elements[element] = encoded[offset + 8 : offset + 8 + length]
        offset += 8 + length
    return elements


class Keeper:
    """A StoreHandler that keeps what it gets, and answers as told."""

    def __init__(self, incoming: Path, admit: int = 0, answer: int = 0) -> None:
        self.incoming = incoming
        self.admission = admit
        self.answer = answer
        self.kept: dict[str, bytes] = {}
        self.received: list[ReceivedInstance] = []
        self.opened: list[PeerInfo] = []
        self.closed: list[bool] = []
        self.lock = threading.Lock()

    def admit(self, request: StoreRequest) -> int:
        """Answer as told."""
        return self.admission

    def store(self, instance: ReceivedInstance) -> int:
        """Keep the file's bytes."""
        with self.lock:
            self.received.append(instance)
            self.kept[instance.request.sop_instance_uid] = instance.path.read_bytes()
        instance.path.unlink()
        return self.answer

    def association_opened(self, peer: PeerInfo) -> None:
        """Note it."""
        self.opened.append(peer)

    def association_closed(self, peer: PeerInfo, *, aborted: bool) -> None:
        """Note how it ended."""
        self.closed.append(aborted)


@contextmanager
def serving(handler: Any, **settings: Any) -> Iterator[StorageServer]:
    """Run a storage server on an ephemeral port for the length of a block."""
    extra = {name: settings.pop(name) for name in ("contexts", "evt_handlers") if name in settings}
    server = StorageServer(ServerSettings(port=0, **settings), handler, **extra)
    server.start()
    try:
        yield server
    finally:
        server.stop()
    peers.wait_for("all associations to end", lambda: server.active_associations == 0)


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body

"""What every channel that tells (messages, not objects) promises, each held against a peer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from factories import arrivals, fhir, hl7, http, peers, rows
from fastapi import FastAPI
from pydicom.dataset import Dataset

from agent.access.principal import Principal, Role
from agent.delivery import registry
from agent.delivery.announcements import Announcement, Kind
from agent.delivery.channels import MessageChannel
from agent.settings import Destination, Level, UpsSettings
from agent.web.server import WebServer
from agent.web.workitems import routes
from agent.workitems.service import Workitems
from dicom_nodes.errors import NodeError
from dicom_nodes.hl7 import acknowledgements
from dicom_nodes.hl7.acknowledgements import Code, Verdict
from dicom_nodes.hl7.messages import Message
from dicom_nodes.hl7.server import MllpServer, MllpSettings
from dicom_nodes.scp import ups as scp
from dicom_nodes.scp.server import StorageServer
from dicom_nodes.scp.settings import ServerSettings
from dicom_nodes.ups import Refused, Status

TAKE, REFUSE, LATER = "take", "refuse", "later"


class Peer(Protocol):
    """A destination of one kind that can be told how to behave."""

    mode: str
    destination: Destination

    def kept(self) -> list[str]:
        """What it knows of, one entry per study (or message, by its id)."""


class Engine:
    """An HL7 receiver; it knows a repeat by its control id."""

    def __init__(self) -> None:
        self.mode = TAKE
        self.destination: Destination
        self._ids: set[str] = set()

    def kept(self) -> list[str]:
        """Control ids."""
        return sorted(self._ids)

    def handle(self, content: bytes, _peer: str) -> list[bytes]:
        """Acknowledge as told."""
        header = acknowledgements.header_of(Message.read(content))
        code = {TAKE: Code.ACCEPT, REFUSE: Code.REJECT, LATER: Code.ERROR}[self.mode]
        if code is Code.ACCEPT:
            self._ids.add(header.control_id)
        return acknowledgements.answers(header, Verdict(code), rows.NOW)


class Manager(Workitems):
    """A manager of workitems that refuses on command."""

    mode = TAKE

    def create(self, uid: str, ds: Dataset, who: str) -> str:
        """As told."""
        if manager_mode[0] == REFUSE:
            raise Refused(Status.NOT_AUTHORIZED)
        if manager_mode[0] == LATER:
            raise Refused(Status.RESOURCE_LIMITATION)
        return super().create(uid, ds, who)


manager_mode = [TAKE]
"""How `Manager` behaves; it is frozen itself."""


class Worklist:
    """A peer that manages workitems."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.sessions = rows.sessions(folder)
        self.manager = Manager(self.sessions, UpsSettings(accept_created=True))
        self.destination: Destination
        self.mode = TAKE

    @property
    def mode(self) -> str:
        """How it behaves."""
        return manager_mode[0]

    @mode.setter
    def mode(self, value: str) -> None:
        manager_mode[0] = value

    def kept(self) -> list[str]:
        """UIDs of its workitems."""
        return [str(ds.SOPInstanceUID) for ds in self.manager.search(Dataset())]


class Web:
    """A webhook's receiver, or a FHIR server."""

    def __init__(self) -> None:
        self.mode = TAKE
        self.destination: Destination
        self.fhir = fhir.FhirServer()
        self._keys: set[str] = set()

    def kept(self) -> list[str]:
        """Idempotency keys, or ids of Tasks."""
        return sorted(self._keys) or [task["id"] for task in self.fhir.of("Task")]

    def hook(self, request: http.Request) -> http.Answer:
        """Answer a webhook."""
        if self.mode != TAKE:
            return http.Answer({REFUSE: 422, LATER: 503}[self.mode])
        if request.method == "POST":
            self._keys.add(request.headers["Idempotency-Key"])
        return http.Answer(202)

    def ehr(self, request: http.Request) -> http.Answer:
        """Answer a FHIR client."""
        self.fhir.status = {TAKE: 0, REFUSE: 422, LATER: 503}[self.mode]
        return self.fhir.answer(request)


@contextmanager
def engine(_folder: Path) -> Iterator[Peer]:
    """An MLLP listener."""
    peer = Engine()
    server = MllpServer(MllpSettings(), peer.handle)
    server.start()
    peer.destination = Destination(name="p", kind="hl7", port=server.port)
    yield peer
    server.stop(1)


@contextmanager
def dimse(folder: Path) -> Iterator[Peer]:
    """A UPS provider."""
    peer = Worklist(folder)
    service = scp.service(peer.manager, lambda _ae: True)
    server = StorageServer(
        ServerSettings(port=0),
        arrivals.handler(folder, peer.sessions),
        contexts=service.contexts,
        evt_handlers=service.evt_handlers,
    )
    server.start()
    peer.destination = Destination(name="p", kind="ups", ae_title="RIS", port=server.port)
    yield peer
    server.stop()


class Machine:
    """Everybody is a machine with a token."""

    login_path = ""

    def identify(self, _connection: Any) -> Principal:
        """Knows everybody."""
        return Principal("agent", Role.SERVICE)


@contextmanager
def rs(folder: Path) -> Iterator[Peer]:
    """A UPS-RS origin server."""
    peer = Worklist(folder)
    app = FastAPI()
    app.state.access, app.state.other_origins = Machine(), ()
    routes.install(app, peer.manager)
    server = WebServer(app, "127.0.0.1", 0)
    server.start()
    url = f"http://127.0.0.1:{server.port}/dicom-web"
    peer.destination = Destination(name="p", kind="ups-rs", url=url)
    yield peer
    server.stop()


@contextmanager
def hook(folder: Path) -> Iterator[Peer]:
    """A webhook's receiver."""
    folder.mkdir()
    (folder / "key").write_text("k")
    peer = Web()
    with http.serving(peer.hook) as server:
        signing = {"secret_file": folder / "key"}
        peer.destination = Destination(name="p", kind="webhook", url=server.url, webhook=signing)
        yield peer


@contextmanager
def ehr(_folder: Path) -> Iterator[Peer]:
    """A FHIR server."""
    peer = Web()
    with http.serving(peer.ehr) as server:
        peer.destination = Destination(name="p", kind="fhir", url=server.url)
        yield peer


#: A new kind of channel joins here and keeps the same promises.
PEERS: dict[str, Any] = {
    "hl7": engine,
    "ups": dimse,
    "ups-rs": rs,
    "webhook": hook,
    "fhir": ehr,
}


@pytest.fixture(params=sorted(registry.MESSAGE_CHANNELS))
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind in the registry."""
    return str(request.param)


@pytest.fixture
def peer(kind: str, tmp_path: Path) -> Iterator[Peer]:
    """A running peer of that kind."""
    running: AbstractContextManager[Peer] = PEERS[kind](tmp_path / "peer")
    with running as peer:
        yield peer


@pytest.fixture
def channel(peer: Peer) -> MessageChannel:
    """The registry's channel to it."""
    return registry.message_channel(peer.destination, "WLAGENT")


def news(level: Level = Level.STAT) -> Announcement:
    """A priority."""
    told = hl7.announcement(Kind.PRIORITY)
    return dataclasses.replace(told, priority=dataclasses.replace(told.priority, level=level))


def test_told_means_taken_and_a_repeat_leaves_one(channel: MessageChannel, peer: Peer) -> None:
    """The outbox relies on it after every crash."""
    for _ in range(3):
        channel.announce(news())
    assert len(peer.kept()) == 1


def test_a_refusal_is_permanent_and_names_no_patient(channel: MessageChannel, peer: Peer) -> None:
    """What the destination will never take is not tried again; messages go to logs and pages."""
    peer.mode = REFUSE
    with pytest.raises(NodeError) as caught:
        channel.announce(news())
    assert caught.value.permanent
    assert peer.kept() == []
    for secret in ("PAT|1", "ACC&1", "ller", "19600101", "1.2.3.4"):
        assert secret not in str(caught.value)


def test_not_now_is_transient(channel: MessageChannel, peer: Peer) -> None:
    """What may be taken later is tried again, and then taken."""
    peer.mode = LATER
    with pytest.raises(NodeError) as caught:
        channel.announce(news())
    assert not caught.value.permanent
    peer.mode = TAKE
    channel.announce(news())
    assert len(peer.kept()) == 1


def test_a_preview_reaches_nobody(channel: MessageChannel, peer: Peer) -> None:
    """It is the dry run: it shows what would be said."""
    peer.mode = REFUSE
    assert "intracranial" in channel.preview(news()).lower()
    assert peer.kept() == []


def test_check_returns_when_the_destination_answers_and_tells_nothing(
    channel: MessageChannel, peer: Peer
) -> None:
    """For `doctor`."""
    channel.check()
    assert peer.kept() == []


def test_nobody_there_is_transient(kind: str, tmp_path: Path) -> None:
    """A destination that is down fails each call with what to check."""
    port = peers.free_port()
    (tmp_path / "key").write_text("k")
    values: dict[str, Any] = {"url": f"http://127.0.0.1:{port}/x"}
    if kind in {"hl7", "ups"}:
        values = {"port": port, "ae_title": "NOBODY"}
    if kind == "webhook":
        values["webhook"] = {"secret_file": tmp_path / "key"}
    channel = registry.message_channel(Destination(name="p", kind=kind, timeout_s=2, **values))
    for call in (lambda: channel.announce(news()), channel.check):
        with pytest.raises(NodeError, match="check") as caught:
            call()
        assert not caught.value.permanent


def test_every_kind_that_is_told_is_held_to_this() -> None:
    """No channel without its peer."""
    assert set(registry.MESSAGE_CHANNELS) == set(PEERS)

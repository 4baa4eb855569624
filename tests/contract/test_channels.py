"""What every channel in the registry promises, each held against a peer of its kind."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import pytest
from factories import dicom, http, peers
from pydicom import dcmread
from pydicom.dataset import Dataset

from agent.delivery import registry
from agent.delivery.channels import Channel
from agent.delivery.channels.archive import ReadsBack
from agent.demo.pacs import EmbeddedPacs
from agent.settings import MESSAGE_DESTINATIONS, Destination
from dicom_nodes.errors import NodeError

OUT_OF_RESOURCES, CLASS_NOT_SUPPORTED = 0xA700, 0x0122


class Peer(Protocol):
    """A destination of one kind that can be told how to behave."""

    status: int
    """What it answers to a store; 0 = keeps the instance."""
    destination: Destination

    def kept(self) -> list[str]:
        """SOP Instance UIDs it holds, one entry per object."""


class DicomPeer(EmbeddedPacs):
    """The embedded archive, refusing on command."""

    status = 0

    def _on_store(self, event: Any) -> int:
        return self.status or super()._on_store(event)

    @property
    def destination(self) -> Destination:
        """How to reach it."""
        return Destination(name="p", kind="dicom", ae_title=self.ae_title, port=self.port)

    def kept(self) -> list[str]:
        """Files on its disk."""
        return sorted(path.stem for path in self.directory.rglob("*.dcm"))


class WebPeer:
    """A DICOMweb archive in a dictionary."""

    def __init__(self) -> None:
        self.status = 0
        self.destination: Destination
        self._held: dict[str, Dataset] = {}
        self._lock = threading.Lock()

    def kept(self) -> list[str]:
        """Keys of the dictionary."""
        return sorted(self._held)

    def answer(self, request: http.Request) -> http.Answer:
        """STOW and QIDO, as much as is needed."""
        with self._lock:
            if request.method == "POST":
                return self._store(request)
            matches = self._search(request.path)
            return http.Answer(200, matches) if matches else http.Answer(204)

    def _store(self, request: http.Request) -> http.Answer:
        part = request.body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
        ds = dcmread(BytesIO(part))
        item = Dataset()
        item.ReferencedSOPClassUID = ds.SOPClassUID
        item.ReferencedSOPInstanceUID = ds.SOPInstanceUID
        answer = Dataset()
        if self.status:
            item.FailureReason = self.status
            answer.FailedSOPSequence = [item]
            return http.Answer(409, answer.to_json_dict())
        self._held.setdefault(str(ds.SOPInstanceUID), ds)
        answer.ReferencedSOPSequence = [item]
        return http.Answer(200, answer.to_json_dict())

    def _search(self, path: str) -> list[Any]:
        level = "SeriesInstanceUID" if "/series" in path else "StudyInstanceUID"
        if "/instances" in path:
            level = "SOPInstanceUID"
        wanted = re.search(r"(?:StudyInstanceUID=|studies/)([0-9.]+)", path)
        groups: dict[str, list[Dataset]] = {}
        for ds in self._held.values():
            if wanted is None or ds.StudyInstanceUID == wanted.group(1):
                groups.setdefault(str(ds[level].value), []).append(ds)
        return [_match(group) for group in groups.values()]


def _match(group: list[Dataset]) -> Any:
    match = Dataset()
    for keyword in (
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "PatientID",
        "AccessionNumber",
    ):
        setattr(match, keyword, group[0][keyword].value)
    match.NumberOfStudyRelatedInstances = len(group)
    match.NumberOfSeriesRelatedInstances = len(group)
    return match.to_json_dict()


@contextmanager
def dicom_peer(directory: Path) -> Iterator[Peer]:
    """A DICOM node."""
    with DicomPeer(directory) as peer:
        yield peer


@contextmanager
def web_peer(_directory: Path) -> Iterator[Peer]:
    """A DICOMweb server."""
    peer = WebPeer()
    with http.serving(peer.answer) as server:
        peer.destination = Destination(name="p", kind="dicomweb", url=server.url)
        yield peer


#: A new kind of channel joins here and keeps the same promises.
PEERS: dict[str, Any] = {"dicom": dicom_peer, "dicomweb": web_peer}


@pytest.fixture(params=sorted(registry.CHANNELS))
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
def channel(peer: Peer) -> Channel:
    """The registry's channel to it."""
    return registry.channel(peer.destination, "WLAGENT")


@pytest.fixture
def instance() -> Dataset:
    """One object to send."""
    return dicom.ct_series(n=1)[0]


@pytest.fixture
def path(instance: Dataset, tmp_path: Path) -> Path:
    """Its file."""
    return dicom.save(instance, tmp_path / "object.dcm")


def test_send_returns_when_the_destination_holds_the_object(
    channel: Channel, peer: Peer, path: Path, instance: Dataset
) -> None:
    """Success means: it is there."""
    channel.send(path)
    assert peer.kept() == [instance.SOPInstanceUID]


def test_sending_again_is_no_error_and_leaves_one_object(
    channel: Channel, peer: Peer, path: Path
) -> None:
    """The outbox relies on it after every crash."""
    for _ in range(3):
        channel.send(path)
    assert len(peer.kept()) == 1


def test_a_refusal_is_permanent(channel: Channel, peer: Peer, path: Path) -> None:
    """What the destination will never take is not tried again."""
    peer.status = CLASS_NOT_SUPPORTED
    with pytest.raises(NodeError, match="SOP class not supported") as caught:
        channel.send(path)
    assert caught.value.permanent


def test_not_now_is_transient(channel: Channel, peer: Peer, path: Path) -> None:
    """What may be taken later is tried again, and then taken."""
    peer.status = OUT_OF_RESOURCES
    with pytest.raises(NodeError, match="out of resources") as caught:
        channel.send(path)
    assert not caught.value.permanent
    peer.status = 0
    channel.send(path)


def test_nobody_there_is_transient_for_every_question(kind: str, path: Path) -> None:
    """A destination that is down fails each call with what to check."""
    port = peers.free_port()
    values = (
        {"ae_title": "NOBODY", "port": port}
        if kind == "dicom"
        else {"url": f"http://127.0.0.1:{port}/dicom-web"}
    )
    channel = registry.channel(Destination(name="p", kind=kind, timeout_s=2, **values), "WLAGENT")
    for call in (
        lambda: channel.send(path),
        lambda: channel.held_study("1.2.3"),
        lambda: channel.count_instances("1.2.3"),
        channel.check,
    ):
        with pytest.raises(NodeError, match=f"{port}.*check") as caught:
            call()
        assert not caught.value.permanent


def test_errors_name_no_patient(channel: Channel, peer: Peer, path: Path) -> None:
    """Messages go to logs and pages."""
    peer.status = CLASS_NOT_SUPPORTED
    with pytest.raises(NodeError) as caught:
        channel.send(path)
    for secret in ("PAT1", "Patient1", "ACC1", "19600101"):
        assert secret not in str(caught.value)


def test_identity_and_count_are_those_of_the_study(
    channel: Channel, path: Path, instance: Dataset
) -> None:
    """Known studies answer, unknown ones are None; excluded series do not count."""
    study_uid = str(instance.StudyInstanceUID)
    assert channel.held_study(study_uid) is None
    assert channel.count_instances(study_uid) is None
    channel.send(path)
    held = channel.held_study(study_uid)
    assert held is not None
    assert (held.patient_id, held.accession_number) == ("PAT1", "ACC1")
    assert channel.count_instances(study_uid) == 1
    assert channel.count_instances(study_uid, [instance.SeriesInstanceUID]) == 0
    assert channel.held_study("1.2.3") is None


def test_what_was_sent_can_be_read_back(channel: Channel, path: Path, instance: Dataset) -> None:
    """Under its patient and accession, by series; what is not there is not shown."""
    assert isinstance(channel, ReadsBack)
    study_uid, series_uid = str(instance.StudyInstanceUID), str(instance.SeriesInstanceUID)
    before = channel.held_objects(study_uid, [series_uid])
    assert (before.study, dict(before.instances)) == (None, {})
    channel.send(path)
    held = channel.held_objects(study_uid, [series_uid])
    assert held.study is not None
    assert (held.study.patient_id, held.study.accession_number) == ("PAT1", "ACC1")
    assert dict(held.instances) == {str(instance.SOPInstanceUID): study_uid}


def test_check_returns_when_the_destination_answers(channel: Channel) -> None:
    """For `doctor`."""
    channel.check()


def test_every_kind_a_destination_may_have_is_registered() -> None:
    """The configuration allows exactly what can be spoken to, and all of it is tested here."""
    allowed = set(Destination.model_json_schema()["properties"]["kind"]["enum"])
    assert set(registry.CHANNELS) == set(PEERS) == allowed - MESSAGE_DESTINATIONS
    assert set(registry.MESSAGE_CHANNELS) == MESSAGE_DESTINATIONS

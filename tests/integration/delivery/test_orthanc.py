"""Delivery to a real archive over DIMSE and DICOMweb: up, down, slow, deaf and refusing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import dicom, orthanc, peers, proxy
from factories import outbox as make
from pydicom import dcmread

from agent.delivery import outbox as orders
from agent.delivery import registry
from agent.settings import Destination
from db.states import DeliveryState, StudyState

Record = Any  # tests/integration/delivery/conftest.py

pytestmark = pytest.mark.peers


def destination_of(kind: str, pacs: orthanc.Orthanc, port: int | None = None) -> Destination:
    """How to reach an Orthanc over one protocol, perhaps through a proxy's port."""
    if kind == "dicom":
        values = {"ae_title": pacs.ae_title, "host": pacs.host, "port": port or pacs.dicom_port}
    else:
        values = {"url": f"http://{pacs.host}:{port or pacs.http_port}/dicom-web"}
    return Destination(name="pacs", kind=kind, shadow=False, timeout_s=5, **values)


def port_of(kind: str, pacs: orthanc.Orthanc) -> int:
    """The port a proxy stands before."""
    return pacs.dicom_port if kind == "dicom" else pacs.http_port


@pytest.fixture(params=["dicom", "dicomweb"])
def kind(request: pytest.FixtureRequest) -> str:
    """Both protocols."""
    return str(request.param)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[orthanc.Orthanc]:
    """One archive that takes everything."""
    with orthanc.running(tmp_path_factory.mktemp("orthanc")) as pacs:
        yield pacs


@pytest.fixture
def pacs(shared: orthanc.Orthanc) -> orthanc.Orthanc:
    """The same, emptied."""
    for study in shared.get("/studies"):
        shared.request("DELETE", f"/studies/{study}")
    return shared


def test_every_kind_of_result_arrives_as_it_is(
    sqlite: Record, pacs: orthanc.Orthanc, kind: str
) -> None:
    """SR, SEG, parametric map and secondary capture, one of each, their bytes unchanged."""
    study = sqlite.enqueue(make.ALL)
    assert sqlite.deliver(destination_of(kind, pacs)) == 4
    assert sqlite.study(study).state == StudyState.DONE
    sent = {str(dcmread(path).SOPInstanceUID): path for path in sqlite.files()}
    assert pacs.sop_uids(StudyInstanceUID=study.study_uid) == sorted(sent)
    for uid, path in sent.items():
        assert _dataset(pacs.file(uid)) == _dataset(path.read_bytes())


def test_sending_again_leaves_exactly_one_instance(
    sqlite: Record, pacs: orthanc.Orthanc, kind: str
) -> None:
    """However often a delivery is repeated, the archive holds one object."""
    study = sqlite.enqueue(("sr",))
    (path,) = sqlite.files()
    channel = registry.channel(destination_of(kind, pacs), "WLAGENT")
    for _ in range(3):
        channel.send(path)
    assert sqlite.deliver(destination_of(kind, pacs)) == 1
    assert sqlite.states() == [DeliveryState.DELIVERED]
    assert len(pacs.sop_uids(StudyInstanceUID=study.study_uid)) == 1
    assert channel.count_instances(study.study_uid) == 1


def test_counts_and_identity_come_from_the_archive(
    pacs: orthanc.Orthanc, tmp_path: Path, kind: str
) -> None:
    """Our own series are left out; an unknown study is unknown."""
    source, own = dicom.ct_series(n=3), dicom.ct_series(n=2, key="2")
    for path in dicom.save_all([*source, *own], tmp_path):
        pacs.upload(path)
    channel = registry.channel(destination_of(kind, pacs), "WLAGENT")
    channel.check()
    study_uid = source[0].StudyInstanceUID
    assert channel.count_instances(study_uid) == 5
    assert channel.count_instances(study_uid, [own[0].SeriesInstanceUID]) == 3
    assert channel.count_instances("1.2.3") is None
    held = channel.held_study(study_uid)
    assert held is not None
    assert (held.patient_id, held.accession_number) == ("PAT1", "ACC1")
    assert channel.held_study("1.2.3") is None


def test_an_archive_that_is_down_gets_its_results_when_it_is_back(
    sqlite: Record, tmp_path: Path, kind: str
) -> None:
    """Nothing is lost while nobody listens, and nothing is doubled afterwards."""
    pacs = orthanc.Orthanc(tmp_path / "orthanc")
    study = sqlite.enqueue(("sr", "seg"))
    sqlite.deliver(destination_of(kind, pacs))
    assert sqlite.states() == [DeliveryState.PENDING] * 2
    assert "no connection" in sqlite.rows()[0].last_error
    try:
        pacs.start()
        sqlite.clock.forward(seconds=5)
        assert sqlite.deliver(destination_of(kind, pacs)) == 2
        assert sqlite.study(study).state == StudyState.DONE
        assert len(pacs.sop_uids()) == 2
    finally:
        pacs.stop()


def test_a_slow_archive_is_waited_for(sqlite: Record, pacs: orthanc.Orthanc, kind: str) -> None:
    """20 ms per 8 KiB is slow, not broken."""
    study = sqlite.enqueue(("sr", "seg"))
    with proxy.running(port_of(kind, pacs), delay_s=0.02) as slow:
        assert sqlite.deliver(destination_of(kind, pacs, slow.port)) == 2
        assert slow.connections > 0
    assert sqlite.study(study).state == StudyState.DONE


def test_an_answer_that_is_lost_leaves_one_instance(
    sqlite: Record, pacs: orthanc.Orthanc, kind: str
) -> None:
    """The archive stored it, we never heard: it is sent again, and still one."""
    study = sqlite.enqueue(("sr",))
    destination = destination_of(kind, pacs)
    with proxy.running(port_of(kind, pacs)) as line:
        through = destination_of(kind, pacs, line.port).model_copy(update={"timeout_s": 1.0})
        channel = registry.channel(through, "WLAGENT")
        _deafen_after_handshake(line, kind)
        with pytest.raises(Exception, match=r"no valid response|no answer|no connection"):
            channel.send(sqlite.files()[0])
    peers.wait_for("the archive stored it", lambda: pacs.sop_uids())
    assert sqlite.deliver(destination) == 1
    assert len(pacs.sop_uids(StudyInstanceUID=study.study_uid)) == 1


def test_a_line_that_breaks_in_the_middle_is_tried_again(
    sqlite: Record, pacs: orthanc.Orthanc, kind: str
) -> None:
    """A connection cut inside the object is transient; the archive keeps no half of it."""
    study = sqlite.enqueue(("sr",), patient_name="Long^Name" * 3)
    pad = sqlite.files()[0]
    ds = dcmread(pad)
    ds.TextValue = "x" * 100_000
    ds.save_as(pad)
    destination = destination_of(kind, pacs).model_copy(update={"check_identity": False})
    with proxy.running(port_of(kind, pacs), cut_after=50_000) as line:
        cut = destination_of(kind, pacs, line.port).model_copy(update={"check_identity": False})
        assert sqlite.deliver(cut) == 1
    assert sqlite.states() == [DeliveryState.PENDING]
    assert pacs.sop_uids() == []
    sqlite.clock.forward(seconds=5)
    assert sqlite.deliver(destination) == 1
    assert sqlite.study(study).state == StudyState.DONE


def test_an_archive_with_another_patient_gets_nothing(
    sqlite: Record, pacs: orthanc.Orthanc, tmp_path: Path, kind: str
) -> None:
    """The study was corrected in the archive after we received it: the push stops, with alarm."""
    study = sqlite.enqueue(("sr",))
    corrected = dicom.ct_series(n=1, study_uid=study.study_uid, patient="999")
    pacs.upload(dicom.save(corrected[0], tmp_path / "ct.dcm"))
    sqlite.deliver(destination_of(kind, pacs))
    assert sqlite.states() == [DeliveryState.DEAD]
    assert "holds the study under another patient ID" in sqlite.rows()[0].last_error
    assert len(pacs.sop_uids()) == 1
    assert sqlite.study(study).state == StudyState.FAILED


def test_a_class_the_archive_does_not_know_is_dead_alone(sqlite: Record, tmp_path: Path) -> None:
    """Orthanc told to refuse: other objects arrive, the refused one raises the alarm."""
    with orthanc.running(tmp_path / "orthanc", UnknownSopClassAccepted=False) as pacs:
        study = sqlite.enqueue(("sr", "seg"))
        private = next(path for path in sqlite.files() if path.name == "seg.dcm")
        ds = dcmread(private)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.826.0.1.3680043.8.498.77"
        ds.save_as(private)
        sqlite.deliver(destination_of("dicom", pacs))
        assert {row.kind: row.state for row in sqlite.rows()} == {
            "sr": DeliveryState.DELIVERED,
            "seg": DeliveryState.DEAD,
        }
        assert "SOP class" in next(r for r in sqlite.rows() if r.kind == "seg").last_error
        assert sqlite.study(study).state == StudyState.FAILED


def test_an_archive_that_does_not_allow_us_to_store(sqlite: Record, tmp_path: Path) -> None:
    """Refused with what to check; delivered once the archive was told about us."""
    directory = tmp_path / "orthanc"
    study = sqlite.enqueue(("sr",))
    strict = orthanc.Orthanc(
        directory, DicomAlwaysAllowStore=False, DicomAlwaysAllowFind=True, DicomModalities={}
    )
    try:
        strict.start()
        sqlite.deliver(destination_of("dicom", strict))
        # Orthanc aborts the association instead of answering: an AE table may be mended meanwhile
        assert sqlite.states() == [DeliveryState.PENDING]
        assert "that it allows WLAGENT" in sqlite.rows()[0].last_error
        assert strict.sop_uids() == []
    finally:
        strict.stop()
    with orthanc.running(directory) as kind_one:
        with sqlite.sessions.begin() as session:
            orders.retry_delivery(session, sqlite.rows()[0].id, sqlite.clock())
        sqlite.deliver(destination_of("dicom", kind_one))
        assert sqlite.study(study).state == StudyState.DONE


def test_a_wrong_password_is_dead_until_it_is_mended(sqlite: Record, tmp_path: Path) -> None:
    """HTTP 401 is permanent; with the right password file the retry arrives."""
    password = tmp_path / "password"
    password.write_text("wrong")
    with orthanc.running(
        tmp_path / "orthanc",
        authorization="agent:right",
        AuthenticationEnabled=True,
        RegisteredUsers={"agent": "right"},
    ) as pacs:
        values = {"username": "agent", "password_file": password}
        destination = destination_of("dicomweb", pacs).model_copy(update=values)
        study = sqlite.enqueue(("sr",))
        sqlite.deliver(destination)
        assert sqlite.states() == [DeliveryState.DEAD]
        assert "HTTP 401" in sqlite.rows()[0].last_error
        password.write_text("right\n")
        with sqlite.sessions.begin() as session:
            orders.retry_dead(session, sqlite.clock())
        sqlite.deliver(destination)
        assert sqlite.study(study).state == StudyState.DONE


def _deafen_after_handshake(line: proxy.Proxy, kind: str) -> None:
    """Lose the archive's answers, but not the association's acceptance."""
    line.answers_before_silence = 1 if kind == "dicom" else 0


def _dataset(content: bytes) -> bytes:
    """A Part-10 file without its meta information, which archives write anew."""
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]

"""A whole study with marked patient data: where the marks may be, and where they never are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pydicom
import pytest
from factories import agent_process, dicom, hospital, model_packs, peers
from factories.agent_process import AgentProcess
from factories.hospital import Sample

from agent.demo.pacs import EmbeddedPacs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Values that occur nowhere by chance, in every element that says who the patient is.
MARKS = {
    "PatientName": "Zyxwvut^Qpmark",
    "PatientID": "MARKID7731",
    "OtherPatientIDs": "OTHERMARK88",
    "PatientBirthDate": "19431109",
    "AccessionNumber": "ACCMARK5523",
    "PatientAddress": "Markstreet 99417",
    "ReferringPhysicianName": "Refmark^Doctor",
    "PatientComments": "commentmark",
    "StudyID": "SIDMARK",
}
WORDS = tuple(
    word for value in MARKS.values() for word in re.split(r"[\^ ]", value) if len(word) > 5
)


@dataclass(frozen=True)
class House:
    """An agent that has done one study, had one refused and one whose push was stopped."""

    agent: AgentProcess
    pacs: EmbeddedPacs
    study: Sample


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Every path that could tell: success, a broken instance, a changed identity, late images."""
    folder = tmp_path_factory.mktemp("privacy")
    pack = model_packs.bright_pack(folder / "pack")
    one = hospital.sample(folder, "marked", n=12, **MARKS)
    with EmbeddedPacs(folder / "pacs") as pacs:
        destination = agent_process.dicom("pacs", pacs.port)
        agent = AgentProcess(folder / "agent", pack, [destination], log={"level": "debug"})
        try:
            agent.start()
            agent.send_all(one.files[:10])
            agent.wait_until([one.study_uid])
            _send_what_breaks(agent, one, folder)
            agent.send_all(one.files[10:])
            peers.wait_for("revision 2", lambda: agent.study(one.study_uid).revision == 2, 60)
            agent.wait_until([one.study_uid])
            for path in ("/", "/metrics", "/readyz", "/api/worklist"):
                agent.get(path)
            yield House(agent, pacs, one)
            agent.stop()
        finally:
            agent_process.clean_up(agent)


def _send_what_breaks(agent: AgentProcess, one: Sample, folder: Path) -> None:
    """Another content under a known UID, an image without pixels, one that lacks its study."""
    ds = pydicom.dcmread(one.files[0])
    ds.StudyDescription = "OTHER"
    ds.PatientComments = "commentmark again"
    agent.send([dicom.save(ds, folder / "again" / "a.dcm")])
    ds = pydicom.dcmread(one.files[1])
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = dicom.uid("no pixels")
    del ds.PixelData
    agent.send([dicom.save(ds, folder / "empty" / "b.dcm")])
    ds = pydicom.dcmread(one.files[2])
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = dicom.uid("no study")
    del ds.StudyInstanceUID
    agent.send([dicom.save(ds, folder / "lost" / "c.dcm")])


def _listening(agent: AgentProcess) -> set[tuple[str, int]]:
    """Where the agent and its children listen."""
    assert agent.process is not None
    processes = (psutil.Process(agent.process.pid), *agent.children())
    connections = [c for process in processes for c in process.net_connections("inet")]
    return {tuple(c.laddr) for c in connections if c.status == psutil.CONN_LISTEN}


def test_study_went_through_everything(house: House) -> None:
    """The marks were there to be leaked: page, record and results hold them."""
    report, *_ = hospital.reports(house.pacs, house.study.study_uid)
    page = house.agent.get("/").decode()

    assert report.PatientID == MARKS["PatientID"]
    assert "Zyxwvut" in page
    assert house.agent.events("instance_quarantined")
    assert house.agent.events("instance_conflict")
    assert house.agent.study(house.study.study_uid).revision == 2
    assert '"level": "debug"' in house.agent.log()


def test_no_log_line_holds_patient_data(house: House) -> None:
    """At level debug, with errors, from the agent, its libraries and the inference process."""
    told = [w for w in WORDS if w.lower() in house.agent.log().lower()]

    assert told == []


def test_no_metric_or_health_answer_holds_patient_data(house: House) -> None:
    """Metrics leave the hospital's protected systems."""
    text = (house.agent.get("/metrics") + house.agent.get("/readyz")).decode()

    assert [w for w in WORDS if w.lower() in text.lower()] == []


def test_no_url_of_the_pages_holds_patient_data(house: House) -> None:
    """URLs end in proxies' logs and browser histories."""
    listed = house.agent.get_json("/api/worklist")["studies"]
    paths = ["/", *(entry["links"]["page"] for entry in listed)]
    links = [
        link
        for path in paths
        for link in re.findall(r'(?:href|src|action)="([^"]+)"', house.agent.get(path).decode())
    ]

    assert links
    assert [u for u in (*links, *paths) if any(w.lower() in u.lower() for w in WORDS)] == []


def test_no_file_or_directory_name_holds_patient_data(house: House) -> None:
    """Names are seen by whoever may list a directory or read a backup's log."""
    names = [str(p.relative_to(house.agent.data_dir)) for p in house.agent.data_dir.rglob("*")]

    assert len(names) > 20
    assert [n for n in names if any(w.lower() in n.lower() for w in WORDS)] == []


def test_quarantine_notes_hold_no_patient_data(house: House) -> None:
    """What is written beside a refused instance may be mailed to its manufacturer."""
    notes = list((house.agent.data_dir / "spool" / "quarantine").glob("*.json"))

    assert notes
    text = " ".join(note.read_text() for note in notes).lower()
    assert [w for w in WORDS if w.lower() in text] == []


def test_connections_go_to_configured_destinations_only(house: House) -> None:
    """No update check, no telemetry, no model download: one address, the archive's."""
    reached = house.agent.connections()
    local = {"lookup 127.0.0.1", "lookup None"}  # None: our own address, asked when binding

    assert reached - local == {f"connect 127.0.0.1 {house.pacs.port}"}


def test_it_listens_on_the_configured_ports_only(house: House) -> None:
    """DICOM and web, on the loopback address they are configured for."""
    config = house.agent.config

    assert _listening(house.agent) == {
        ("127.0.0.1", config.dicom.port),
        ("127.0.0.1", config.web.port),
    }

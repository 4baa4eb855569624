"""Real senders: DCMTK's storescu and Orthanc send studies to the storage server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa
from factories import arrivals, dicom, orthanc, peers
from sqlalchemy.orm import Session, sessionmaker

from agent.intake.handler import IntakeHandler
from db.models import Instance, Study
from dicom_nodes.scp.server import StorageServer
from dicom_nodes.scp.settings import ServerSettings

pytestmark = pytest.mark.peers
Sessions = sessionmaker[Session]


@pytest.fixture
def intake(tmp_path: Path, sessions: Sessions) -> IntakeHandler:
    """The shipped intake on SQLite and PostgreSQL."""
    return arrivals.handler(tmp_path, sessions)


@pytest.fixture(params=["fast", "pynetdicom"])
def server(request: pytest.FixtureRequest, intake: IntakeHandler) -> Iterator[StorageServer]:
    """The shipped server, either engine."""
    server = StorageServer(ServerSettings(port=0, engine=request.param), intake)
    server.start()
    yield server
    server.stop()


def storescu(port: int, folder: Path, *options: str) -> None:
    """Send all files of a folder with DCMTK."""
    command = [peers.require(peers.find("storescu"), "DCMTK's storescu"), "-aet", "SCANNER"]
    files = sorted(str(path) for path in folder.rglob("*.dcm"))
    done = subprocess.run(
        [*command, *options, "127.0.0.1", str(port), *files], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def recorded(sessions: Sessions) -> dict[str, str]:
    """Paths by SOP Instance UID."""
    with sessions() as session:
        found = session.execute(sa.select(Instance.sop_uid, Instance.path))
        return {row.sop_uid: row.path for row in found}


def test_storescu_sends_a_ct_and_an_mr(
    server: StorageServer, intake: IntakeHandler, sessions: Sessions, tmp_path: Path
):
    """Every file lies in the spool with the same dataset, every study in the record."""
    ct, mr = dicom.ct_series(12), dicom.mr_series(12, patient="2")
    folder = dicom.study_dir(tmp_path / "sent", ct, mr)
    storescu(server.port, folder)

    found = recorded(sessions)
    assert set(found) == {str(ds.SOPInstanceUID) for ds in (*ct, *mr)}
    for ds in (*ct, *mr):
        kept = pydicom.dcmread(intake.incoming.parent / found[str(ds.SOPInstanceUID)])
        assert kept == ds
    with sessions() as session:
        studies = session.scalars(sa.select(Study).order_by(Study.modalities)).all()
    assert [(s.modalities, s.instance_count) for s in studies] == [("CT", 12), ("MR", 12)]
    assert {s.calling_ae for s in studies} == {"SCANNER"}


def test_eight_associations_at_once_lose_nothing(
    server: StorageServer, sessions: Sessions, tmp_path: Path
):
    """Eight studies in parallel, one of them from two senders at the same time."""
    series = [dicom.ct_series(15, patient=str(n)) for n in range(7)]
    folders = [dicom.study_dir(tmp_path / f"sent{n}", s) for n, s in enumerate(series)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda folder: storescu(server.port, folder), [*folders, folders[0]]))

    with sessions() as session:
        counts = session.scalars(sa.select(Study.instance_count)).all()
        versions = set(session.scalars(sa.select(Instance.version)))
    assert counts == [15] * 7
    assert versions == {0}
    assert len(recorded(sessions)) == 105


@pytest.mark.parametrize("options", [("-xi",), ("-xe",), ("-xb",), ("--max-pdu", "4096")])
def test_storescu_with_other_proposals(
    server: StorageServer, sessions: Sessions, tmp_path: Path, options: tuple[str, ...]
):
    """Implicit VR, explicit VR, big endian first, and small PDUs."""
    folder = dicom.study_dir(tmp_path / "sent", dicom.ct_series(3))
    storescu(server.port, folder, *options)

    assert len(recorded(sessions)) == 3


def test_orthanc_sends_a_study(
    intake: IntakeHandler, sessions: Sessions, tmp_path: Path, server: StorageServer
):
    """A PACS forwards: Orthanc echoes, then stores the whole study."""
    series = dicom.ct_series(12)
    modality = {"agent": ("WLAGENT", "127.0.0.1", server.port)}
    with orthanc.running(tmp_path / "pacs", modalities=modality, dicomweb=False) as pacs:
        for path in dicom.save_all(series, tmp_path / "files"):
            pacs.upload(path)
        pacs.request("POST", "/modalities/agent/echo", b"{}")
        job = {"Resources": pacs.get("/studies"), "Synchronous": True}
        pacs.request("POST", "/modalities/agent/store", json.dumps(job).encode())

    assert set(recorded(sessions)) == {str(ds.SOPInstanceUID) for ds in series}
    with sessions() as session:
        study = session.scalars(sa.select(Study)).one()
    assert (study.instance_count, study.calling_ae) == (12, "ORTHANC")

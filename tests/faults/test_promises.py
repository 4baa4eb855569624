"""Promises about one running agent: late instances, our own results, shadow mode, identity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa
from factories import agent_process, dicom, hospital, model_packs, peers
from factories.agent_process import AgentProcess
from factories.hospital import Sample

from agent.demo.pacs import EmbeddedPacs
from db.models import Delivery, Event, Series
from dicom_nodes.scu import store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class House:
    """One agent and its archive; CT is read for real, MR in shadow mode."""

    agent: AgentProcess
    pacs: EmbeddedPacs

    def deliveries(self, study_uid: str) -> list[Delivery]:
        """Outbox rows of a study."""
        study = self.agent.study(study_uid)
        with self.agent.reading() as session:
            rows = sa.select(Delivery).where(Delivery.study_id == study.id).order_by(Delivery.id)
            return list(session.execute(rows).scalars())

    def events(self, study_uid: str) -> list[str]:
        """Names of a study's events."""
        study = self.agent.study(study_uid)
        with self.agent.reading() as session:
            kinds = sa.select(Event.kind).where(Event.study_id == study.id).order_by(Event.id)
            return list(session.execute(kinds).scalars())

    def read(self, one: Sample) -> None:
        """Send a study and wait until it is done."""
        self.agent.send_all(one.files)
        self.agent.wait_until([one.study_uid])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Started once: the tests use studies of their own."""
    folder = tmp_path_factory.mktemp("house")
    pack = model_packs.bright_pack(folder / "pack")
    packs = {
        "live": {"path": str(pack), "shadow": False},
        "shadow": {"path": str(pack), "shadow": True},
    }
    rules = [
        {"name": "ct", "when": {"modality": "CT"}, "pack": "live"},
        {"name": "mr", "when": {"modality": "MR"}, "pack": "shadow"},
    ]
    with EmbeddedPacs(folder / "pacs") as pacs:
        agent = AgentProcess(
            folder / "agent",
            pack,
            [agent_process.dicom("pacs", pacs.port)],
            packs=packs | {"test": {"path": str(pack)}},
            routing={"rules": rules},
        )
        try:
            agent.start()
            yield House(agent, pacs)
        finally:
            agent_process.clean_up(agent)


def test_late_instances_open_a_revision_that_supersedes(house: House, tmp_path: Path) -> None:
    """Images that come after the report make a second report that names the first."""
    one = hospital.sample(tmp_path, "late", n=12)
    house.read(Sample(one.study_uid, one.files[:10]))

    house.agent.send_all(one.files[10:])
    peers.wait_for("revision 2", lambda: house.agent.study(one.study_uid).revision == 2, 30)
    house.agent.wait_until([one.study_uid])

    hospital.assert_delivered_once(house.agent, house.pacs, one.study_uid)
    first, second = hospital.reports(house.pacs, one.study_uid)
    (predecessor,) = second.PredecessorDocumentsSequence
    (series,) = predecessor.ReferencedSeriesSequence
    (named,) = series.ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first


def test_own_results_sent_back_open_no_revision(house: House, tmp_path: Path) -> None:
    """A PACS that forwards our SR, SEG, map and capture to us starts nothing and counts nothing."""
    one, marker = hospital.sample(tmp_path, "own"), hospital.sample(tmp_path, "after-own")
    house.read(one)
    before = house.agent.study(one.study_uid)
    returned = [held.path for held in house.pacs.objects(one.study_uid)]

    assert all(outcome.ok for outcome in store.store(house.agent.node, returned))
    house.read(marker)  # by now every sweep has seen what came back

    after = house.agent.study(one.study_uid)
    assert (after.state, after.revision) == ("done", before.revision)
    assert after.instance_count == before.instance_count == len(one.files)
    assert after.modalities == "CT"
    with house.agent.reading() as session:
        own = sa.select(Series.own_result).where(Series.study_id == after.id)
        flags = sorted(session.execute(own).scalars())
        assert flags == [False] + [True] * (4 * before.revision)
    assert len(house.pacs.objects(one.study_uid)) == len(returned)


def test_shadow_mode_pushes_nothing_and_keeps_the_ordered_priority(
    house: House, tmp_path: Path
) -> None:
    """What the model says is on record; PACS and worklist do not see it."""
    one = hospital.sample(tmp_path, "shadow", modality="MR", RequestedProcedurePriority="MEDIUM")
    house.read(one)

    study = house.agent.study(one.study_uid)
    assert (study.priority, study.priority_reason) == ("MEDIUM", "ordered priority")
    assert house.pacs.objects(one.study_uid) == []
    assert {row.state for row in house.deliveries(one.study_uid)} == {"shadow"}
    (listed,) = [
        entry
        for entry in house.agent.get_json("/api/worklist")["studies"]
        if entry["study"]["study_uid"] == one.study_uid
    ]
    assert listed["level"] == "MEDIUM"


def test_changed_identity_stops_the_push_and_raises_the_alarm(house: House, tmp_path: Path) -> None:
    """A patient ID that is corrected before delivery stops it; analysed again, it arrives."""
    one = hospital.sample(tmp_path, "wrong")
    house.pacs.stop()
    try:
        house.agent.send_all(one.files)
        house.agent.wait_until([one.study_uid], "delivering")
        house.agent.send_all(_corrected(one, tmp_path, "RIGHT"))
    finally:
        house.pacs.start()
    house.agent.wait_until([one.study_uid], "failed")

    assert house.pacs.objects(one.study_uid) == []
    assert {row.state for row in house.deliveries(one.study_uid)} == {"dead"}
    assert "patient ID" in house.agent.study(one.study_uid).reason
    assert house.agent.events("delivery_dead")
    checks = {c["name"]: c["status"] for c in house.agent.get_json("/readyz")["checks"]}
    assert checks["deliveries"] == "degraded"

    retried = house.agent.command("studies", "retry", one.study_uid, "--reanalyse")
    assert retried.returncode == 0, retried.stderr
    house.agent.wait_until([one.study_uid])
    (report,) = hospital.reports(house.pacs, one.study_uid)
    assert report.PatientID == "RIGHT"


def _corrected(one: Sample, folder: Path, patient_id: str) -> list[Path]:
    corrected = []
    for path in one.files:
        ds = pydicom.dcmread(path)
        ds.PatientID = patient_id
        corrected.append(dicom.save(ds, folder / "corrected" / path.name))
    return corrected

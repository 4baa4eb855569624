"""Performed steps, notices and storage commitment over real associations, beside storage."""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from factories import arrivals, dicom, peers, rows
from factories.modality import CT, Modality, step
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session, sessionmaker

from agent.assembly import sweep
from agent.intake.handler import IntakeHandler
from agent.services.availability import Notices
from agent.services.commitment import CommitmentRequests
from agent.services.performed_steps import PerformedSteps
from agent.settings import AssemblySettings, DeliverySettings
from db.engine import reading
from db.models import CommitmentTransaction, Instance, PerformedStep, Study
from dicom_nodes.answers import StoreOutcome
from dicom_nodes.commitment import NO_SUCH_INSTANCE, PROCESSING_FAILURE
from dicom_nodes.node import Node
from dicom_nodes.scp import commitment, dispatch, fallback
from dicom_nodes.scp.mpps import RESOURCE_LIMITATION
from dicom_nodes.scp.server import StorageServer
from dicom_nodes.scp.settings import ServerSettings
from dicom_nodes.scu import store

SETTINGS = AssemblySettings(quiet_s=30, ceiling_s=1800, announced_quiet_s=300)
DUPLICATE, TOO_LATE, INVALID = 0x0111, 0x0110, 0x0106


@dataclass
class House:
    """A listening node with all its services, and what it recorded."""

    sessions: sessionmaker[Session]
    spool: Path
    port: int
    nodes: dict[str, Node]
    requests: CommitmentRequests

    def send(self, *datasets: Dataset) -> list[StoreOutcome]:
        """C-STORE to it."""
        return store.store(Node("WLAGENT", "127.0.0.1", self.port), datasets)

    def assemble(self, study_uid: str, later_s: float = 0) -> tuple[str, str]:
        """Sweep as if so much time had passed; the study's state and reason."""
        now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=later_s)
        sweep.sweep(self.sessions, SETTINGS, now)
        with reading(self.sessions) as session:
            study = session.execute(sa.select(Study).filter_by(study_uid=study_uid)).scalar_one()
            return study.state, study.reason

    def steps(self, sop_uid: str) -> list[tuple[str, str]]:
        """(study, status) of a step's rows."""
        query = sa.select(PerformedStep.study_uid, PerformedStep.status)
        with reading(self.sessions) as session:
            found = session.execute(query.filter_by(sop_uid=sop_uid).order_by(PerformedStep.id))
            return [(row[0], row[1]) for row in found]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One node for all tests here; each has studies of its own."""
    folder = tmp_path_factory.mktemp("house")
    sessions = rows.sessions(folder)
    handler: IntakeHandler = arrivals.handler(folder, sessions)
    nodes: dict[str, Node] = {}
    spool = folder / "spool"
    requests = CommitmentRequests(sessions, spool, nodes, DeliverySettings(jitter=0))
    service = dispatch.combine(
        [
            PerformedSteps(sessions).service(),
            Notices(sessions).service(),
            commitment.service(requests.keep, lambda _report: 0x0000),
        ]
    )
    server = StorageServer(
        ServerSettings(port=0),
        handler,
        contexts=service.contexts,
        evt_handlers=service.evt_handlers,
    )
    server.start()
    yield House(sessions, spool, server.port, nodes, requests)
    server.stop()


@pytest.fixture
def modality(house: House) -> Modality:
    """A scanner that speaks to it."""
    return Modality(house.port)


def images(key: str, n: int = 2) -> tuple[str, list[Dataset], tuple[str, list[str]]]:
    """A study's UID, its images, and how a step names them."""
    made = dicom.ct_series(n, rows=8, cols=8, patient=key)
    study_uid, series_uid = str(made[0].StudyInstanceUID), str(made[0].SeriesInstanceUID)
    return study_uid, made, (series_uid, [str(ds.SOPInstanceUID) for ds in made])


def test_a_completed_step_completes_the_study_when_its_last_image_is_here(
    house: House, modality: Modality
) -> None:
    """In progress: nothing but the ceiling ends it; completed: at once, without quiet time."""
    study_uid, made, series = images("S1")
    assert modality.create_step("2.25.11", study_uid) == 0
    house.send(made[0])
    assert house.assemble(study_uid, later_s=600)[0] == "receiving"
    assert modality.set_step("2.25.11", "COMPLETED", [series]) == 0
    assert house.assemble(study_uid, later_s=60)[0] == "receiving", "one image is missing"
    house.send(made[1])

    state, reason = house.assemble(study_uid)

    assert state == "assembled"
    assert reason == "the modality completed its steps and all 2 instances are here"


def test_a_step_that_stays_open_ends_at_the_ceiling(house: House, modality: Modality) -> None:
    """A modality that forgot its step does not keep the study for ever."""
    study_uid, made, _ = images("S2")
    modality.create_step("2.25.12", study_uid)
    house.send(*made)
    state, reason = house.assemble(study_uid, later_s=1801)
    assert state == "assembled"
    assert "still in progress after the ceiling" in reason


def test_a_discontinued_step_is_no_evidence_but_ends_the_waiting(
    house: House, modality: Modality
) -> None:
    """What it made may never be sent: the quiet time decides."""
    study_uid, made, series = images("S3")
    modality.create_step("2.25.13", study_uid)
    modality.set_step("2.25.13", "DISCONTINUED", [series])
    house.send(made[0])
    assert house.assemble(study_uid)[0] == "receiving"
    assert house.assemble(study_uid, later_s=31) == ("assembled", "quiet for 30 s")


def test_messages_that_overtake_each_other_say_the_same_in_the_end(
    house: House, modality: Modality
) -> None:
    """The update first, then the creation, both again; then a study known by its series."""
    study_uid, _, series = images("S4")
    assert modality.set_step("2.25.14", "COMPLETED", [series]) == 0
    assert house.steps("2.25.14") == [("", "COMPLETED")]
    assert modality.create_step("2.25.14", study_uid) == 0
    assert house.steps("2.25.14") == [(study_uid, "COMPLETED")]
    assert modality.create_step("2.25.14", study_uid) == 0
    assert modality.set_step("2.25.14", "COMPLETED", [series]) == 0
    assert house.steps("2.25.14") == [(study_uid, "COMPLETED")]
    assert modality.create_step("2.25.14", "2.25.999") == DUPLICATE
    assert modality.set_step("2.25.14", "DISCONTINUED") == TOO_LATE

    orphan_uid, made, its_series = images("S5")
    modality.set_step("2.25.15", "COMPLETED", [its_series])
    house.send(*made)
    assert house.assemble(orphan_uid)[0] == "assembled"


def test_a_step_for_two_studies_counts_for_both(house: House, modality: Modality) -> None:
    """The group case: one scan, two orders."""
    assert modality.create_step("2.25.16", "2.25.161", "2.25.162") == 0
    assert house.steps("2.25.16") == [("2.25.161", "IN PROGRESS"), ("2.25.162", "IN PROGRESS")]
    assert modality.create_step(None, "2.25.163") == 0, "without a UID we give one"


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
def test_what_no_modality_says_is_refused_and_leaves_nothing(
    house: House, modality: Modality
) -> None:
    """An unknown status, a UID that is too long, more series than there can be."""
    assert modality.create_step("2.25.17", "2.25.171", status="PERHAPS") == INVALID
    assert modality.create_step("2.25.17", "2." + "1" * 200) == RESOURCE_LIMITATION
    flood = step("IN PROGRESS", [("", ())] * 2_001)
    assert modality.send_step(flood, "2.25.17") == RESOURCE_LIMITATION
    assert house.steps("2.25.17") == []


def test_a_notice_completes_a_study_that_came_later_and_ignores_our_results(
    house: House, modality: Modality
) -> None:
    """Kept before any image; the same notice again changes nothing."""
    study_uid, made, series = images("N1")
    for _ in range(2):
        assert modality.notify("2.25.21", study_uid, [series]) == 0
    house.send(made[0])
    state, _ = house.assemble(study_uid, later_s=31)
    assert state == "receiving", "quiet, but one announced image is missing"
    house.send(made[1])
    with house.sessions.begin() as session:
        study = session.execute(sa.select(Study).filter_by(study_uid=study_uid)).scalar_one()
        ours = rows.result(session, rows.analysis(session, study)).sop_uid
    modality.notify("2.25.22", study_uid, [("2.25.220", [ours])])

    state, reason = house.assemble(study_uid, later_s=3)

    assert (state, reason) == (
        "assembled",
        "all 2 instances announced as available are here",
    )


def test_announced_instances_are_waited_for_longer_but_not_for_ever(
    house: House, modality: Modality
) -> None:
    """What an archive announced and nobody sends is named in the reason."""
    study_uid, made, series = images("N2", n=3)
    modality.notify("2.25.23", study_uid, [series])
    house.send(made[0])
    assert house.assemble(study_uid, later_s=200)[0] == "receiving"
    state, reason = house.assemble(study_uid, later_s=301)
    assert state == "assembled"
    assert reason == "quiet for 300 s, 2 announced instances are missing"


def test_commitment_is_reported_to_the_peers_address_by_row_and_bytes(
    house: House, modality: Modality
) -> None:
    """Kept, unknown and damaged (other bytes than its row) are told apart."""
    _, made, (_, uids) = images("C1")
    house.send(*made)
    with house.sessions.begin() as session:
        damaged = session.execute(sa.select(Instance).filter_by(sop_uid=uids[1])).scalar_one()
        damaged.sha256 = hashlib.sha256(b"other").hexdigest()
    pairs = [(CT, uid) for uid in (*uids, "2.25.404")]
    with modality.listening() as port:
        house.nodes["CT01"] = Node("CT01", "127.0.0.1", port, timeout_s=5)
        assert modality.ask_commitment("2.25.31", pairs) == 0
        assert house.requests.run_once() == 1
    (report,) = modality.reports
    assert [one.sop_instance_uid for one in report.committed] == [uids[0]]
    assert [(one.sop_instance_uid, reason) for one, reason in report.failed] == [
        (uids[1], PROCESSING_FAILURE),
        ("2.25.404", NO_SUCH_INSTANCE),
    ]
    assert house.requests.run_once() == 0


def test_a_report_waits_for_a_peer_that_is_away(house: House, modality: Modality) -> None:
    """The request is in the record: it is brought when the peer listens again."""
    house.nodes["AWAY"] = Node("AWAY", "127.0.0.1", peers.free_port(), timeout_s=2)
    modality.ae_title = "AWAY"
    modality.ask_commitment("2.25.32", [(CT, "2.25.1")])
    assert house.requests.run_once() == 0
    with modality.listening() as port, house.sessions.begin() as session:
        house.nodes["AWAY"] = Node("AWAY", "127.0.0.1", port, timeout_s=5)
        due = sa.update(CommitmentTransaction).where(CommitmentTransaction.peer == "AWAY")
        session.execute(due.values(next_attempt_at=dt.datetime.now(dt.UTC)))
        session.commit()
        assert house.requests.run_once() == 1
    assert len(modality.reports) == 1


def test_a_peer_without_an_address_is_answered_on_its_own_association(
    house: House, modality: Modality
) -> None:
    """It holds its association open; the report comes on it."""
    modality.ae_title = "WORKSTATION"

    asking = threading.Thread(
        target=modality.ask_commitment,
        args=("2.25.33", [(CT, "2.25.1")]),
        kwargs={"wait_s": 10},
    )
    asking.start()
    peers.wait_for("the report to be due", lambda: house.requests.run_once() == 1)
    asking.join(15)
    assert len(modality.reports) == 1
    assert not asking.is_alive()


def test_storage_and_steps_share_a_port(house: House, modality: Modality) -> None:
    """A storage association beside takes the fast path as before."""
    _, made, _ = images("C2")
    assert all(outcome.ok for outcome in house.send(*made))
    assert modality.create_step("2.25.41", "2.25.411") == 0


def test_a_message_that_never_ends_loses_its_connection(
    house: House, modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library would collect it in memory for ever; the next association is served as before."""
    monkeypatch.setattr(fallback, "MAX_MESSAGE_BYTES", 200_000)
    modality.timeout_s = 2
    flood = step("IN PROGRESS", [("2.25.1", [f"2.25.{n}" for n in range(5_000)])])
    with pytest.raises(AttributeError, match="Status"):  # no answer
        modality.send_step(flood, "2.25.51")
    assert house.steps("2.25.51") == []
    assert modality.create_step("2.25.52", "2.25.521") == 0

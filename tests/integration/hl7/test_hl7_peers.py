"""HL7 and worklist peers that are not ours: hl7apy's MLLP server, its parser, dcmtk's wlmscpfs."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import subprocess
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import hl7 as make
from factories import peers, rows
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from agent import worklist_scp
from agent.delivery.announcements import Kind
from agent.delivery.channels.hl7 import Hl7Channel
from agent.orders import mwl
from agent.orders.prioritizing import Policy
from agent.orders.room import OrdersRoom
from agent.settings import Destination, PrioritySettings
from agent.settings_hl7 import Hl7Settings, MwlSettings
from db.models import Order, Study
from dicom_nodes.errors import PeerBusy, PeerRefused
from dicom_nodes.hl7 import mllp
from dicom_nodes.hl7.server import MllpServer, MllpSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from hl7apy.core import Message as PeerMessage
    from hl7apy.mllp import AbstractHandler, MLLPServer
    from hl7apy.parser import parse_message


class Engine:
    """An integration engine on hl7apy: answers with a code, keeps what it was sent."""

    def __init__(self) -> None:
        self.code = "AA"
        self.kept: list[str] = []
        engine = self

        class Handler(AbstractHandler):  # type: ignore[misc]
            """One for all types."""

            def reply(self) -> str:
                """Keep the message and acknowledge it."""
                engine.kept.append(self.incoming_message)
                return engine.answer(self.incoming_message)

        kinds = ("ORU^R01^ORU_R01", "OMI^O23^OMI_O23", "ORM^O01^ORM_O01")
        self.server = MLLPServer("127.0.0.1", 0, dict.fromkeys(kinds, (Handler,)))
        self.port = int(self.server.server_address[1])

    def answer(self, text: str) -> str:
        """An ACK by hl7apy."""
        received = parse_message(text, find_groups=False)
        ack = PeerMessage("ACK", version="2.5.1")
        ack.msh.msh_9, ack.msh.msh_10, ack.msh.msh_11 = "ACK", "R1", "P"
        ack.add_segment("MSA")
        ack.msa.msa_1, ack.msa.msa_2 = self.code, received.msh.msh_10.value
        return str(ack.to_mllp())


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A running engine."""
    peer = Engine()
    thread = threading.Thread(target=peer.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield peer
    peer.server.shutdown()
    peer.server.server_close()
    thread.join(10)


@pytest.mark.parametrize("kind", ["ORU^R01", "OMI^O23", "ORM^O01"])
def test_a_foreign_engine_takes_our_messages(engine: Engine, kind: str) -> None:
    """It parses them, acknowledges, and reads identity and priority out of them."""
    destination = Destination.model_validate(
        {
            "name": "engine",
            "kind": "hl7",
            "port": engine.port,
            "timeout_s": 10,
            "hl7": {"priority_as": kind},
        }
    )
    channel = Hl7Channel(destination)
    channel.announce(make.announcement())
    channel.announce(make.announcement(Kind.REPORT, draft=make.draft("Left bleed.")))

    priority, report = (parse_message(text, find_groups=False) for text in engine.kept)
    assert priority.pid.pid_5.pid_5_1.value == "Müller"
    assert priority.orc.orc_7.value.split("^")[5] == "S"
    assert report.msh.msh_9.value == "ORU^R01^ORU_R01"
    assert report.obr.obr_25.value == "P"


def test_a_foreign_refusal_is_what_the_site_says(engine: Engine) -> None:
    """AE passes, AR stays."""
    destination = Destination(name="engine", kind="hl7", port=engine.port, timeout_s=10)
    engine.code = "AE"
    with pytest.raises(PeerBusy):
        Hl7Channel(destination).announce(make.announcement())
    engine.code = "AR"
    with pytest.raises(PeerRefused):
        Hl7Channel(destination).announce(make.announcement())


def test_a_foreign_sender_reads_our_acknowledgement(tmp_path: Path) -> None:
    """Its order reaches the study; our answer is valid by its tables."""
    sessions = rows.sessions(tmp_path)
    with sessions.begin() as session:
        study_id = rows.study(session, patient_id="PAT1", accession_number="ACC1").id
    room = OrdersRoom(sessions, Hl7Settings(), Policy(PrioritySettings()), lambda: rows.NOW)
    order = parse_message(make.order().decode(), find_groups=True)
    server = MllpServer(MllpSettings(), room.handle)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
            connection.sendall(order.to_mllp().encode())
            answer = b""
            while mllp.END not in answer:
                answer += connection.recv(4096)
    finally:
        server.stop(2)

    ack = parse_message(answer.strip(mllp.START + mllp.END).decode() + "\r", find_groups=False)
    assert ack.validate()
    assert (ack.msa.msa_1.value, ack.msa.msa_2.value) == ("AA", order.msh.msh_10.value)
    with sessions() as session:
        assert session.get_one(Study, study_id).ordered_priority == "STAT"


def query(tmp_path: Path, port: int, **values: object) -> tuple[int, list[Order], Study]:
    """Ask a worklist for the order of one study; what came of it."""
    sessions = rows.sessions(tmp_path)
    with sessions.begin() as session:
        study_id = rows.study(
            session, patient_id="PAT1", accession_number="ACC1", issuer_of_patient_id=""
        ).id
    settings = MwlSettings.model_validate(
        {"port": port, "ae_title": "RIS", "timeout_s": 10, **values}
    )
    sweep = mwl.MwlOrders(
        sessions,
        settings,
        Policy(PrioritySettings()),
        lambda: rows.NOW,
        mwl.asker(settings, "WLAGENT"),
    )
    found = sweep()
    assert sweep() == 0  # not asked again at once, and nobody is asked for a study with an order
    with sessions() as session:
        return found, list(session.query(Order)), session.get_one(Study, study_id)


@contextlib.contextmanager
def our_worklist(folder: Path) -> Iterator[int]:
    """The agent's own worklist SCP, holding the study under a STAT order."""
    folder.mkdir()
    sessions = rows.sessions(folder)
    with sessions.begin() as session:
        given = {"patient_id": "PAT1", "accession_number": "ACC1", "issuer_of_patient_id": ""}
        rows.study(session, ordered_priority="STAT", study_uid="1.2.3", **given)
        rows.study(session, ordered_priority="HIGH")
    service = worklist_scp.service(sessions, PrioritySettings(), lambda: rows.NOW)
    ae = AE("RIS")
    ae.supported_contexts = list(service.contexts)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(service.evt_handlers))
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()


@pytest.mark.parametrize("match_on", ["accession", "patient"])
def test_our_own_worklist_gives_an_order(tmp_path: Path, match_on: str) -> None:
    """By accession number, or by patient and then accession number."""
    with our_worklist(tmp_path / "ris") as port:
        found, orders, study = query(tmp_path, port, match_on=match_on)

    assert (found, study.ordered_priority) == (1, "STAT")
    assert [(o.accession_number, o.status) for o in orders] == [("ACC1", "MWL")]


@pytest.mark.peers
def test_a_foreign_worklist_gives_an_order(tmp_path: Path) -> None:
    """By dcmtk, wlmscpfs: indication and priority of the scheduled procedure."""
    program = peers.require(peers.find("wlmscpfs"), "wlmscpfs")
    folder = tmp_path / "wl" / "RIS"
    folder.mkdir(parents=True)
    (folder / "lockfile").touch()
    _worklist_file().save_as(folder / "one.wl", enforce_file_format=True)
    port = peers.free_port()
    command = [program, "-dfp", str(folder.parent), "-dfr", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            peers.wait_for("wlmscpfs listens", lambda: peers.listens(port))
            found, orders, study = query(tmp_path, port)
        finally:
            server.terminate()

    assert (found, study.ordered_priority) == (1, "STAT")
    assert [o.indication for o in orders] == ["fall, anticoagulated"]


def _worklist_file() -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.AccessionNumber, ds.PatientID, ds.PatientName = "ACC1", "PAT1", "Example^Ada"
    ds.PatientBirthDate, ds.PatientSex = "19600101", "F"
    ds.StudyInstanceUID, ds.RequestedProcedureID = "1.2.3", "RP1"
    ds.RequestedProcedureDescription = "CT HEAD"
    ds.RequestedProcedurePriority = "STAT"
    ds.ReasonForTheRequestedProcedure = "fall, anticoagulated"
    step = Dataset()
    step.Modality, step.ScheduledStationAETitle = "CT", "CT1"
    step.ScheduledProcedureStepStartDate = dt.date(2026, 11, 23).strftime("%Y%m%d")
    step.ScheduledProcedureStepStartTime = "080000"
    step.ScheduledProcedureStepID = "SPS1"
    step.ScheduledPerformingPhysicianName = ""
    step.ScheduledProcedureStepDescription = "CT HEAD"
    ds.ScheduledProcedureStepSequence = [step]
    ds.file_meta = _meta()
    return ds


def _meta() -> Dataset:
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.31"
    meta.MediaStorageSOPInstanceUID = "2.25.31"
    return meta

"""The worklist over DICOM, asked by DCMTK's findscu and by pynetdicom."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from factories import rows
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import ModalityWorklistInformationFind
from sqlalchemy.orm import Session, sessionmaker

from agent import worklist, worklist_scp
from agent.settings import PrioritySettings
from db.engine import reading
from db.states import ReadingState, StudyState
from dicom_nodes.scp.worklist import WorklistItem, contexts, make_find_handler

POLICY = PrioritySettings()


@dataclass(frozen=True)
class Node:
    """A worklist SCP over a database."""

    port: int
    sessions: sessionmaker[Session]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Five studies behind a plain pynetdicom entity."""
    sessions = rows.sessions(tmp_path)
    with sessions.begin() as session:
        _ward(session)
    service = worklist_scp.service(sessions, POLICY, lambda: rows.NOW)
    yield from _serve(service.contexts, service.evt_handlers, sessions)


def _serve(presentation: Iterable[Any], handlers: Iterable[Any], sessions: Any) -> Iterator[Node]:
    ae = AE("WLAGENT")
    ae.supported_contexts = list(presentation)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=list(handlers))
    yield Node(server.socket.getsockname()[1], sessions)
    server.shutdown()


def _ward(session: Session) -> None:
    routine = rows.study(
        session,
        number=1,
        priority="LOW",
        ordered_priority="ROUTINE",
        modalities="CT\\SR",
        first_instance_at=rows.minutes_ago(40),
    )
    rows.analysis(session, routine, rows.findings(rows.finding(probability=0.02)))
    stat = rows.study(
        session,
        number=2,
        priority="STAT",
        patient_name="Müller^Jürgen",
        first_instance_at=rows.minutes_ago(3),
    )
    rows.analysis(session, stat)
    shadow = rows.study(
        session,
        number=3,
        ordered_priority="HIGH",
        modalities="MR",
        first_instance_at=rows.minutes_ago(9),
    )
    rows.analysis(session, shadow, shadow=True)
    rows.study(session, number=4, state=StudyState.QUEUED, first_instance_at=rows.minutes_ago(1))
    rows.study(session, number=5, priority="STAT", reading_state=ReadingState.READ)


def _findscu(node: Node, *keys: str) -> list[dict[str, str]]:
    """Ask with findscu; every answer as keyword -> printed value."""
    arguments = [part for key in keys for part in ("-k", key)]
    done = subprocess.run(
        ["findscu", "-W", "-v", "-aec", "WLAGENT", *arguments, "127.0.0.1", str(node.port)],
        capture_output=True,
        timeout=60,
        check=True,
    )
    text = (done.stdout + done.stderr).decode()
    assert "Received Final Find Response (Success)" in text, text
    blocks = re.split(r"Find Response(?:: \d+|.*?Pending)", text)[1:]
    return [_values(block) for block in blocks if "RequestedProcedure" in block]


def _values(block: str) -> dict[str, str]:
    lines = re.findall(r"\([0-9a-f]{4},[0-9a-f]{4}\) \w\w (.*?)\s*#\s*\d+,\s*\d+ (\w+)", block)
    return {keyword: value.strip("[]").strip() for value, keyword in lines}


@pytest.mark.peers
def test_findscu_sees_the_order_of_the_page_and_its_priorities(node: Node):
    """The answers come in reading order, Requested Procedure Priority (0040,1003) in the root."""
    answers = _findscu(node, "RequestedProcedurePriority", "AccessionNumber", "StudyInstanceUID")

    with reading(node.sessions) as session:
        page = worklist.entries(session, POLICY, rows.NOW)
    assert [e.study.accession for e in page.entries] == [a["AccessionNumber"] for a in answers]
    assert [a["RequestedProcedurePriority"] for a in answers] == [
        "STAT",
        "HIGH",
        "MEDIUM",
        "ROUTINE",
    ]


@pytest.mark.peers
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["AccessionNumber=ACC0002"], ["ACC0002"]),
        (["PatientID=PAT*"], ["ACC0002", "ACC0003", "ACC0004", "ACC0001"]),
        (["PatientName=example*"], ["ACC0003", "ACC0004", "ACC0001"]),
        (["RequestedProcedurePriority=ROUTINE"], ["ACC0001"]),
        (["ScheduledProcedureStepSequence[0].Modality=MR"], ["ACC0003"]),
        (["ScheduledProcedureStepSequence[0].ScheduledStationAETitle=OTHER"], []),
        (
            ["ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate=20261101-20261122"],
            [],
        ),
        (["PatientBirthDate=-19591231"], []),
    ],
)
def test_findscu_keys_restrict_the_answer(node: Node, keys: list[str], expected: list[str]):
    """Wildcards, ranges and keys inside the step sequence are honoured."""
    asked = {key.split("=")[0] for key in keys}
    wanted = {"AccessionNumber", "RequestedProcedurePriority"} - asked

    answers = _findscu(node, *keys, *wanted)

    assert expected == [a["AccessionNumber"] for a in answers]


def _find(node: Node, keys: Dataset, cancel_after: int | None = None) -> list[Any]:
    ae = AE("READER")
    ae.add_requested_context(ModalityWorklistInformationFind)
    assoc = ae.associate("127.0.0.1", node.port)
    assert assoc.is_established
    answers = []
    for status, found in assoc.send_c_find(keys, ModalityWorklistInformationFind, msg_id=7):
        answers.append((status, found))
        if len(answers) == cancel_after:
            assoc.send_c_cancel(7, query_model=ModalityWorklistInformationFind)
    assoc.release()
    return answers


def test_every_return_key_of_the_standard_comes_back(node: Node):
    """An empty step sequence asks for the whole item; names arrive in UTF-8."""
    keys = Dataset()
    for keyword in (
        "AccessionNumber",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "RequestedProcedureDescription",
        "RequestedProcedureID",
        "RequestedProcedurePriority",
        "IssuerOfPatientID",
        "CurrentPatientLocation",
        "ReferringPhysicianName",
    ):
        setattr(keys, keyword, "")
    keys.StudyInstanceUID = "2.25.1002"
    keys.ScheduledProcedureStepSequence = []

    (status, found), (final, _) = _find(node, keys)

    assert (status.Status, final.Status) == (0xFF00, 0x0000)
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert str(found.PatientName) == "Müller^Jürgen"
    assert (
        found.PatientID,
        found.PatientBirthDate,
        found.PatientSex,
    ) == ("PAT0002", "19600101", "M")
    assert found.RequestedProcedurePriority == "STAT"
    step = found.ScheduledProcedureStepSequence[0]
    assert (
        step.Modality,
        step.ScheduledStationAETitle,
        step.ScheduledProcedureStepStartDate,
        step.ScheduledProcedureStepStartTime,
    ) == ("CT", "SCANNER", "20261123", "080000")
    assert (
        step.ScheduledProcedureStepDescription
    ) == "AI: suspected Intraparenchymal hemorrhage 94% RESEARCH"
    assert found.RequestedProcedureID


def test_shadow_mode_tells_nobody_what_the_model_said(node: Node):
    """In shadow mode the answer holds the ordered priority and no finding."""
    keys = Dataset()
    keys.AccessionNumber = "ACC0003"
    keys.RequestedProcedurePriority = ""
    keys.ScheduledProcedureStepSequence = []

    (_, found), _ = _find(node, keys)

    assert found.RequestedProcedurePriority == "HIGH"
    assert "AI" not in found.ScheduledProcedureStepSequence[0].ScheduledProcedureStepDescription


def test_an_unsupported_key_is_answered_with_the_warning_status(node: Node):
    """Pending 0xFF01 says that an optional key was not supported; it is left out."""
    keys = Dataset()
    keys.AccessionNumber = "ACC0001"
    keys.PatientComments = ""

    (status, found), _ = _find(node, keys)

    assert status.Status == 0xFF01
    assert "PatientComments" not in found


def test_a_key_that_breaks_its_representation_fails_with_a_comment(node: Node):
    """The peer learns that its query, not the worklist, is the trouble."""
    keys = Dataset()
    keys.AccessionNumber = ""
    one, other = Dataset(), Dataset()
    one.Modality = other.Modality = "CT"
    keys.ScheduledProcedureStepSequence = [one, other]

    ((status, _),) = _find(node, keys)

    assert status.Status == 0xA900


def test_a_cancelled_query_ends_early():
    """C-CANCEL stops the answers; the final status says so."""

    def endless(_query: object) -> Iterator[WorklistItem]:
        number = 0
        while True:
            number += 1
            yield WorklistItem(f"2.25.{number}", "RP", "LOW", "CT")

    handlers = [worklist_scp.evt.EVT_C_FIND, make_find_handler(endless)]
    serving = _serve(contexts(), [tuple(handlers)], None)
    node = next(serving)
    keys = Dataset()
    keys.StudyInstanceUID = ""
    try:
        answers = _find(node, keys, cancel_after=3)
    finally:
        next(serving, None)

    assert answers[-1][0].Status == 0xFE00


def test_a_database_failure_is_answered_not_raised():
    """The edge: a failure inside becomes a status, without the identifier in the log."""

    def broken(_query: object) -> Iterator[WorklistItem]:
        raise RuntimeError("no such table")

    serving = _serve(contexts(), [(worklist_scp.evt.EVT_C_FIND, make_find_handler(broken))], None)
    node = next(serving)
    keys = Dataset()
    keys.StudyInstanceUID = ""
    try:
        ((status, _),) = _find(node, keys)
    finally:
        next(serving, None)

    assert status.Status == 0xC001
    assert "log" in status.ErrorComment

"""The orders room on a record: recorded before acknowledged, joined, merged, reported, kept."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from factories import hl7 as make
from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from agent.orders import inbox, joining
from agent.orders.prioritizing import Policy
from agent.orders.room import OrdersRoom
from agent.settings import Destination, PrioritySettings
from agent.settings_hl7 import Hl7Settings
from db.models import Delivery, Event, Hl7Message, Order, ReadingFeedback, Study
from db.queries import orders
from db.states import DeliveryState, ReadingState
from dicom_nodes.hl7.messages import Message, Segment, text_of
from inference.findings import Acuity

ENGINE = Destination(name="engine", kind="hl7", shadow=False)


@dataclass
class Desk:
    """A room, its record, and shortcuts."""

    sessions: sessionmaker[Session]
    room: OrdersRoom

    def tell(self, message: bytes) -> Message:
        """Send a message; its answer."""
        (answer,) = self.room.handle(message, "10.0.0.1")
        return Message.read(answer)

    def study(self, **values: Any) -> int:
        """A study of the patient and accession that the factory's messages name."""
        given = {"patient_id": "PAT1", "accession_number": "ACC1", "patient_location": "", **values}
        with self.sessions.begin() as session:
            return rows.study(session, **given).id

    def analysed(self, *findings: Any, shadow: bool = False, **values: Any) -> int:
        """As `study`, with an analysis; its level stands at the level of the analysis."""
        study_id = self.study(**{"priority": "LOW", "priority_rank": 3, **values})
        with self.sessions.begin() as session:
            study = session.get_one(Study, study_id)
            said = rows.findings(*findings, study_uid=study.study_uid)
            rows.analysis(session, study, said, priority=study.priority, shadow=shadow)
        return study_id

    def get(self, study_id: int) -> Study:
        """The study's row as it is now."""
        with self.sessions() as session:
            return session.get_one(Study, study_id)

    def all(self, model: type[Any]) -> list[Any]:
        """All rows of a table."""
        with self.sessions() as session:
            return list(session.execute(sa.select(model).order_by(model.id)).scalars())

    def kinds(self, study_id: int) -> list[str]:
        """The study's timeline."""
        return [e.kind for e in self.all(Event) if e.study_id == study_id]


def normal() -> Any:
    """A finding below its threshold."""
    return rows.finding("infarct", 0.1, acuity=Acuity.URGENT)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A room with default settings, one destination that is told."""
    return open_desk(tmp_path)


def open_desk(folder: Path, **settings: Any) -> Desk:
    """A room over a database file in the folder."""
    sessions = rows.sessions(folder)
    policy = Policy(PrioritySettings(), (ENGINE,))
    room = OrdersRoom(sessions, Hl7Settings(**settings), policy, lambda: rows.NOW)
    return Desk(sessions, room)


def test_an_order_is_joined_to_its_study(desk: Desk) -> None:
    """Priority and location are the study's, the indication is found through it."""
    study_id = desk.study()

    assert desk.tell(make.order()).get("MSA-1") == "AA"

    study = desk.get(study_id)
    assert (study.ordered_priority, study.patient_location) == ("STAT", "ED")
    with desk.sessions() as session:
        order = orders.of_study(session, study)
        assert order is not None
        assert order.indication == "fall, anticoagulated"
    assert desk.kinds(study_id) == ["order_joined"]


def test_an_order_may_come_first(desk: Desk) -> None:
    """The sweep joins what arrived after its order."""
    desk.tell(make.order())
    study_id = desk.study()

    assert joining.join_recent(desk.sessions, desk.room.policy, rows.NOW) == 1
    assert joining.join_recent(desk.sessions, desk.room.policy, rows.NOW) == 0
    assert desk.get(study_id).ordered_priority == "STAT"


def test_a_study_uid_joins_without_an_accession_number(desk: Desk) -> None:
    """ZDS-1 names the study."""
    study_id = desk.study(accession_number="", study_uid="1.2.3.4")
    desk.tell(make.order("OTHER", study_uid="1.2.3.4"))

    assert desk.get(study_id).ordered_priority == "STAT"


def test_an_order_of_another_patient_is_not_joined(desk: Desk) -> None:
    """The same accession number is not enough; the timeline says so, once."""
    study_id = desk.study(patient_id="SOMEBODY")
    desk.tell(make.order(control_id="A"))
    desk.tell(make.order(control_id="B"))

    assert desk.get(study_id).ordered_priority == ""
    assert desk.kinds(study_id) == ["order_not_joined"]


def test_a_late_order_raises_at_once_and_is_told(desk: Desk) -> None:
    """The worklist moves with the message; nobody is told what they ordered themselves."""
    study_id = desk.analysed(normal())

    desk.tell(make.order(priority="S"))

    study = desk.get(study_id)
    assert (study.priority, study.priority_rank) == ("STAT", 0)
    assert "ordered as STAT" in study.priority_reason
    assert desk.all(Delivery) == []


def test_a_lowered_order_never_lowers_below_the_models(desk: Desk) -> None:
    """An urgent finding keeps its level; without one the study follows its order down again."""
    bleeding = desk.analysed(priority="STAT", accession_number="ACC1", ordered_priority="STAT")
    quiet = desk.analysed(
        normal(), priority="STAT", accession_number="ACC2", ordered_priority="STAT"
    )
    for accession in ("ACC1", "ACC2"):
        desk.tell(make.order(accession, priority="R"))

    assert desk.get(bleeding).priority == "STAT"
    assert desk.get(quiet).priority == "LOW"


def test_an_order_does_not_move_by_what_a_shadow_says(desk: Desk) -> None:
    """In shadow mode the ordered level is the level."""
    study_id = desk.analysed(shadow=True)
    desk.tell(make.order(priority="A"))

    assert desk.get(study_id).priority == "HIGH"


def test_a_repeat_is_acknowledged_again_without_a_second_effect(desk: Desk) -> None:
    """Also with a new time in its header; other content under the same id is another message."""
    study_id = desk.study()
    first = make.order(control_id="X1")
    desk.tell(first)
    again = desk.tell(first.replace(b"20261123083000", b"20261123083100", 1))

    assert (again.get("MSA-1"), again.get("MSA-2")) == ("AA", "X1")
    assert len(desk.all(Hl7Message)) == 1
    assert desk.kinds(study_id) == ["order_joined"]
    desk.tell(make.order(control_id="X1", priority="A"))
    assert desk.get(study_id).ordered_priority == "HIGH"


def test_a_crash_before_the_effect_loses_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On record, not acknowledged: the repeat or the next start applies it."""
    study_id = desk.study()

    def die(_self: OrdersRoom, _message_id: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(OrdersRoom, "_act", die)
        with pytest.raises(KeyboardInterrupt):
            desk.tell(make.order(control_id="X1"))
    assert [m.state for m in desk.all(Hl7Message)] == ["received"]

    assert desk.room.take_up() == 1
    assert desk.tell(make.order(control_id="X1")).get("MSA-1") == "AA"
    assert desk.get(study_id).ordered_priority == "STAT"
    assert desk.kinds(study_id) == ["order_joined"]


def broken(change: Callable[[Segment], object], segment: str = "OBR") -> bytes:
    """The order with one segment changed."""
    header, obr = make.header("ORM^O01", "BAD1"), Segment("OBR").set(1, "1").set(18, "ACC1")
    pid = make.patient()
    change({"MSH": header, "OBR": obr, "PID": pid}[segment])
    return text_of([header, pid, obr]).encode("latin-1", errors="replace")


@pytest.mark.parametrize(
    ("message", "code", "kept"),
    [
        (broken(lambda s: s.set(18, "")), "AE", "quarantined"),
        (broken(lambda s: s.set(3, ""), "PID"), "AE", "quarantined"),
        (broken(lambda s: s.set(10, ""), "MSH"), "AE", "quarantined"),
        (broken(lambda s: s.set(5, "M\xfcller"), "PID"), "AE", "quarantined"),
        (b"no message at all", "AE", "quarantined"),
        (broken(lambda s: s.set(9, "ADT", "A01"), "MSH"), "AR", ""),
        (broken(lambda s: s.set(9, "SIU", "S12"), "MSH"), "AR", ""),
        (broken(lambda s: s.set(11, "T"), "MSH"), "AR", ""),
        (broken(lambda s: s.set(12, "3.0"), "MSH"), "AR", ""),
        (make.merge("PAT9", "PAT1").split(b"MRG")[0], "AE", "quarantined"),
        (make.report(text=" "), "AE", "quarantined"),
        (make.report(status="P"), "AA", "ignored"),
        (make.report("UNKNOWN"), "AA", "ignored"),
    ],
)
def test_what_cannot_be_used_is_answered_and_kept(
    desk: Desk, message: bytes, code: str, kept: str
) -> None:
    """AE and kept for a person; AR where it is the sender's to keep; content in no reason."""
    answer = desk.tell(message)

    assert answer.get("MSA-1") == code
    assert [m.state for m in desk.all(Hl7Message)] == ([kept] if kept else [])
    assert all("PAT1" not in m.reason and "ller" not in m.reason for m in desk.all(Hl7Message))


def test_other_events_may_be_ignored_in_peace(tmp_path: Path) -> None:
    """A feed of everything is acknowledged where the site says so; a test feed never is."""
    desk = open_desk(tmp_path, ignore_other_events=True)

    assert desk.tell(broken(lambda s: s.set(9, "ADT", "A01"), "MSH")).get("MSA-1") == "AA"
    assert desk.tell(broken(lambda s: s.set(11, "T"), "MSH")).get("MSA-1") == "AR"


def test_a_quarantined_message_is_read_again_on_request(tmp_path: Path) -> None:
    """After the mapping was corrected; listing shows no content, content does."""
    desk = open_desk(tmp_path)
    study_id = desk.study()
    message = make.order().replace(b"ACC1", b"", 1).replace(b"PID|", b"ZAC|ACC1\rPID|", 1)
    assert desk.tell(message).get("MSA-1") == "AE"

    desk.room = OrdersRoom(
        desk.sessions,
        Hl7Settings.model_validate({"fields": {"accession": ["ZAC-1"]}}),
        desk.room.policy,
        lambda: rows.NOW,
    )
    with desk.sessions.begin() as session:
        (listed,) = inbox.listing(session, "quarantined", 10)
        assert "PAT1" not in str(listed)
        assert "PID|" in inbox.content(session, listed["id"])
        assert inbox.requeue(session, listed["id"]) == 1
    desk.room.take_up()

    assert desk.get(study_id).ordered_priority == "STAT"
    with desk.sessions.begin() as session, pytest.raises(inbox.UnknownMessage):
        inbox.requeue(session, listed["id"])


@pytest.mark.parametrize("event", ["A40", "A47", "A34"])
def test_a_merge_moves_studies_and_orders(desk: Desk, event: str) -> None:
    """The record follows the RIS; the timeline counts what will not be sent."""
    study_id = desk.analysed(patient_id="OLD")
    other = desk.study(patient_id="THIRD", accession_number="A3")
    with desk.sessions.begin() as session:
        study = session.get_one(Study, study_id)
        analysis = study_analysis(session, study)
        rows.delivery(session, rows.result(session, analysis), state=DeliveryState.PENDING)
    desk.tell(make.order(patient_id="OLD"))

    assert desk.tell(make.merge("OLD", "NEW", event)).get("MSA-1") == "AA"

    assert desk.get(study_id).patient_id == "NEW"
    assert desk.get(other).patient_id == "THIRD"
    assert [o.patient_id for o in desk.all(Order)] == ["NEW"]
    (why,) = [e.why for e in desk.all(Event) if e.kind == "patient_merged"]
    assert "1 deliveries made under the old one will not be sent" in why


def study_analysis(session: Session, study: Study) -> Any:
    """Its analysis."""
    from db.queries import studies

    return studies.current_analyses(session, study)[0]


def test_demographics_are_corrected(desk: Desk) -> None:
    """A08: name in DICOM's order of parts, birth date and sex."""
    study_id = desk.study()
    pid = make.patient(name="Lovelace^Ada^K^III^Dr")
    desk.tell(text_of([make.header("ADT^A08"), pid]).encode())

    study = desk.get(study_id)
    assert (study.patient_name, study.patient_birth_date) == ("Lovelace^Ada^K^Dr^III", "19600101")


@pytest.mark.parametrize("marks", [True, False])
def test_a_final_report_is_kept_beside_the_findings(tmp_path: Path, marks: bool) -> None:
    """Once, with its lines; the study leaves the open list where the site wants that."""
    desk = open_desk(tmp_path, report_marks_read=marks)
    study_id = desk.study()
    for _ in range(2):
        desk.tell(make.report(text="No bleed.\nNo mass."))

    (kept,) = desk.all(ReadingFeedback)
    assert (kept.kind, kept.text) == ("report", "No bleed.\nNo mass.")
    state = desk.get(study_id).reading_state
    assert state == (ReadingState.READ if marks else ReadingState.UNREAD)


def test_old_messages_and_orders_are_forgotten(desk: Desk) -> None:
    """They name patients; what they said stays with the study."""
    from db.queries import hl7_messages

    desk.tell(make.order())
    with desk.sessions.begin() as session:
        later = rows.NOW + dt.timedelta(days=1)
        assert (hl7_messages.forget(session, later), orders.forget(session, later)) == (1, 1)

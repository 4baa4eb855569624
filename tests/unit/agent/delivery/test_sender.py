"""The outbox's worker: order, retries, refusals, identity, leases; every branch with fakes."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import structlog
from factories import outbox as make
from factories import peers
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ParametricMapStorage

from agent.delivery import outbox as orders
from db.models import Study
from db.queries import delivery_claims
from db.states import DeliveryState, StudyState
from dicom_nodes.answers import HeldStudy
from dicom_nodes.errors import PeerBusy, PeerRefused, PeerUnavailable

Bench = Any  # tests/unit/agent/delivery/conftest.py


def refuse(sop_class: str, error: Exception) -> Any:
    """A destination that raises for one SOP class."""

    def on_send(ds: Dataset) -> None:
        if ds.SOPClassUID == sop_class:
            raise error

    return on_send


def test_results_arrive_report_first_and_the_study_is_done(bench: Bench) -> None:
    """SR, SEG, PM, SC in this order; the last delivery closes the study."""
    study = bench.enqueue(("sc", "pm", "seg", "sr"))
    assert bench.run() == 4
    subjects = {row.subject: row.kind for row in bench.rows()}
    assert [subjects[uid] for uid in bench.pacs.sent] == ["sr", "seg", "pm", "sc"]
    assert set(bench.states().values()) == {DeliveryState.DELIVERED}
    now = bench.study(study)
    assert (now.state, now.reason, now.done_at) == (
        StudyState.DONE,
        "4 results delivered",
        bench.clock(),
    )
    assert len(bench.events(study, "delivery_sent")) == 4
    assert bench.outcomes[0] == ("pacs", "sr", "delivered")


def test_the_most_urgent_study_goes_first(bench: Bench) -> None:
    """A STAT study's report does not queue behind routine ones."""
    bench.enqueue(("sr",), priority_rank=3)
    urgent = bench.enqueue(("sr",), priority_rank=0)
    bench.run()
    assert bench.row(study_id=urgent.id).subject == bench.pacs.sent[0]


def test_the_bytes_that_arrive_are_the_bytes_on_disk(bench: Bench) -> None:
    """Nothing is composed or encoded again on the way."""
    bench.enqueue(("sr",))
    bench.run()
    (path,) = bench.results.rglob("sr.dcm")
    assert list(bench.pacs.kept.values()) == [path.read_bytes()]


def test_a_failure_that_may_pass_is_tried_again_later(bench: Bench) -> None:
    """The wait is a column, doubles, and the error is on the row until it arrives."""
    study = bench.enqueue(("sr",))
    bench.pacs.on_send = refuse(Comprehensive3DSRStorage, PeerBusy("PACS: out of resources"))
    for attempt, wait_s in ((1, 5), (2, 10), (3, 20)):
        assert bench.run() == 1
        row = bench.row()
        assert (row.state, row.attempts) == (DeliveryState.PENDING, attempt)
        assert row.next_attempt_at == bench.clock() + dt.timedelta(seconds=wait_s)
        assert row.last_error == "PACS: out of resources"
        assert row.lease_owner is None
        assert bench.run() == 0, "before its time nothing is tried"
        bench.clock.forward(seconds=wait_s)
    bench.pacs.on_send = lambda _: None
    assert bench.run() == 1
    assert bench.row().last_error == ""
    assert bench.study(study).state == StudyState.DONE
    assert len(bench.events(study, "delivery_failed")) == 1, "one line, not one an attempt"
    assert bench.events(study, "delivery_sent")[0].why == "sr to pacs at attempt 4"


def test_other_objects_wait_for_the_report_but_not_for_ever(bench: Bench) -> None:
    """A report that cannot be taken now holds back the rest three times, then they go."""
    bench.enqueue(("sr", "seg"))
    bench.pacs.on_send = refuse(Comprehensive3DSRStorage, PeerBusy("PACS: not now"))
    for wait_s in (5, 10):
        assert bench.run() == 1
        bench.clock.forward(seconds=wait_s)
    assert bench.run() == 2
    assert bench.states() == {"sr": DeliveryState.PENDING, "seg": DeliveryState.DELIVERED}


def test_a_refused_class_does_not_hold_back_the_others(bench: Bench) -> None:
    """The parametric map is dead at once and raises the alarm; the rest arrives."""
    study = bench.enqueue(make.ALL)
    bench.pacs.on_send = refuse(ParametricMapStorage, PeerRefused("PACS: class not accepted"))
    with structlog.testing.capture_logs() as logs:
        bench.run()
    assert bench.states() == {
        "sr": DeliveryState.DELIVERED,
        "seg": DeliveryState.DELIVERED,
        "pm": DeliveryState.DEAD,
        "sc": DeliveryState.DELIVERED,
    }
    now = bench.study(study)
    assert now.state == StudyState.FAILED
    assert now.reason.startswith("1 of 4 deliveries are dead; pm to pacs: PACS: class not accepted")
    assert len(bench.events(study, "delivery_dead")) == 1
    assert [e["log_level"] for e in logs if e["event"] == "delivery_dead"] == ["error"]
    assert ("pacs", "pm", "dead") in bench.outcomes


def test_a_refused_report_does_not_hold_back_the_others(bench: Bench) -> None:
    """A dead report is not open any more."""
    bench.enqueue(("sr", "seg"))
    bench.pacs.on_send = refuse(Comprehensive3DSRStorage, PeerRefused("PACS: no"))
    bench.run()
    assert bench.states() == {"sr": DeliveryState.DEAD, "seg": DeliveryState.DELIVERED}


def test_what_is_not_taken_in_time_is_a_dead_letter(bench: Bench) -> None:
    """After dead_after_hours the alarm is raised, not earlier."""
    study = bench.enqueue(("sr",))
    bench.pacs.on_send = refuse(Comprehensive3DSRStorage, PeerBusy("PACS: not now"))
    bench.clock.forward(hours=71.9)
    bench.run()
    assert bench.row().state == DeliveryState.PENDING
    bench.clock.forward(hours=0.1)
    bench.run()
    assert bench.row().state == DeliveryState.DEAD
    assert "not taken within 72 h" in bench.row().last_error
    assert bench.study(study).state == StudyState.FAILED


def test_an_error_nobody_foresaw_is_kept_without_its_text(bench: Bench) -> None:
    """A library may quote the dataset it choked on; the row names only type and place."""
    bench.enqueue(("sr",))
    bench.pacs.on_send = refuse(Comprehensive3DSRStorage, ValueError("bad value 'Doe^Jane'"))
    bench.run()
    assert bench.row().state == DeliveryState.PENDING
    assert bench.row().last_error.startswith("ValueError")
    assert "Doe" not in bench.row().last_error


def test_shadow_rows_are_never_sent(bench: Bench) -> None:
    """Recorded, not pushed; the study is done."""
    study = bench.enqueue(("sr", "seg"), destinations=[make.destination(shadow=True)])
    assert bench.run() == 0
    assert bench.pacs.sent == []
    assert set(bench.states().values()) == {DeliveryState.SHADOW}
    assert bench.study(study).state == StudyState.DONE
    assert bench.study(study).reason == "shadow mode: 2 results recorded, none pushed"


def test_shadow_mode_switched_on_later_stops_what_waits(bench: Bench) -> None:
    """The switch counts at the time of the push."""
    study = bench.enqueue(("sr",))
    bench.run(shadow=True)
    assert bench.pacs.sent == []
    assert bench.row().state == DeliveryState.SHADOW
    assert bench.study(study).state == StudyState.DONE


def test_a_destination_no_longer_configured_is_a_dead_letter(bench: Bench) -> None:
    """Its rows do not wait for ever for something that may never come back."""
    bench.enqueue(("sr",), destinations=[make.destination("old-pacs")])
    bench.run()
    assert bench.row().state == DeliveryState.DEAD
    assert "old-pacs is not configured any more" in bench.row().last_error


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"patient_id": "ANOTHER"}, "patient ID"),
        ({"accession_number": "ANOTHER"}, "accession number"),
        ({"issuer_of_patient_id": "ANOTHER"}, "issuer of patient ID"),
        ({"study_uid": "1.2.3"}, "Study Instance UID"),
    ],
)
def test_a_changed_identity_stops_the_push(
    bench: Bench, change: dict[str, str], named: str
) -> None:
    """The study's record was corrected after the analysis: nothing goes out, somebody is told."""
    study = bench.enqueue(("sr",))
    with bench.sessions.begin() as session:
        for column, value in change.items():
            setattr(session.get_one(Study, study.id), column, value)
    bench.run()
    assert bench.pacs.sent == []
    assert bench.row().state == DeliveryState.DEAD
    assert named in bench.row().last_error
    assert "ANOTHER" not in bench.row().last_error
    assert len(bench.events(study, "delivery_dead")) == 1


@pytest.mark.parametrize(
    ("held", "pushed"),
    [
        (None, True),
        (HeldStudy("PAT0001", "HOSP", "ACC0001"), True),
        (HeldStudy("PAT0001 ", None, None), True),
        (HeldStudy("PAT0001", "", ""), True),
        (HeldStudy(None, None, None), True),
        (HeldStudy("PAT0002", "HOSP", "ACC0001"), False),
        (HeldStudy("", None, None), False),
        (HeldStudy("PAT0001", "OTHER", "ACC0001"), False),
        (HeldStudy("PAT0001", "HOSP", "ACC0002"), False),
    ],
)
def test_the_destination_must_hold_the_study_under_the_same_identity(
    bench: Bench, held: HeldStudy | None, pushed: bool
) -> None:
    """What it does not know or say is passed; what it says differently stops the push."""
    bench.enqueue(
        ("sr",), patient_id="PAT0001", issuer_of_patient_id="HOSP", accession_number="ACC0001"
    )
    bench.pacs.on_held = lambda _: held
    bench.run()
    assert bool(bench.pacs.sent) is pushed
    assert (bench.row().state == DeliveryState.DELIVERED) is pushed


def test_the_destination_is_not_asked_when_the_check_is_off(bench: Bench) -> None:
    """For nodes that only store."""
    asked: list[str] = []
    bench.enqueue(("sr",))
    bench.pacs.on_held = lambda uid: asked.append(uid)
    bench.run(check_identity=False)
    assert asked == []
    assert bench.row().state == DeliveryState.DELIVERED


def test_a_destination_that_cannot_be_asked_gets_nothing(bench: Bench) -> None:
    """No answer about identity is no permission to push."""

    def down(_: str) -> None:
        raise PeerUnavailable("PACS: no connection")

    bench.enqueue(("sr",))
    bench.pacs.on_held = down
    bench.run()
    assert bench.pacs.sent == []
    assert bench.row().state == DeliveryState.PENDING


def test_a_lost_result_file_is_a_dead_letter(bench: Bench) -> None:
    """Trying again does not bring it back; the message names no path."""
    bench.enqueue(("sr",))
    (path,) = bench.results.rglob("sr.dcm")
    path.unlink()
    bench.run()
    assert bench.row().state == DeliveryState.DEAD
    assert "result file cannot be read" in bench.row().last_error
    assert str(path.name) not in bench.row().last_error


def test_a_file_that_holds_another_object_is_not_sent(bench: Bench) -> None:
    """The record's SOP Instance UID decides."""
    bench.enqueue(("sr", "seg"))
    (sr,) = bench.results.rglob("sr.dcm")
    (seg,) = bench.results.rglob("seg.dcm")
    sr.write_bytes(seg.read_bytes())
    bench.run()
    assert bench.states()["sr"] == DeliveryState.DEAD


def test_a_newer_revision_supersedes_what_was_not_sent(bench: Bench) -> None:
    """Unsent results of revision 1 never arrive after revision 2 exists."""
    study = bench.enqueue(("sr", "seg"))
    bench.pacs.on_send = refuse(Comprehensive3DSRStorage, PeerBusy("PACS: not now"))
    bench.run()
    with bench.sessions.begin() as session:
        again = session.get_one(Study, study.id)
        again.revision = 2
        make.enqueued(session, bench.results, ("sr", "seg"), study=again)
    bench.pacs.on_send = lambda _: None
    bench.clock.forward(hours=1)
    assert bench.run() == 2
    by_state = {state: len(bench.rows(state=state)) for state in DeliveryState}
    assert by_state[DeliveryState.SUPERSEDED] == 2
    assert by_state[DeliveryState.DELIVERED] == 2
    assert bench.study(study).state == StudyState.DONE


def test_a_row_in_flight_when_overtaken_is_not_sent_again(bench: Bench) -> None:
    """It was being sent when revision 2 came; its sender died; nobody sends it any more."""
    study = bench.enqueue(("sr",))
    with bench.sessions.begin() as session:
        delivery_claims.claim(
            session, owner="dead", lease=dt.timedelta(seconds=300), now=bench.clock()
        )
        again = session.get_one(Study, study.id)
        again.revision = 2
        make.enqueued(session, bench.results, ("sr",), study=again)
    bench.clock.forward(seconds=301)
    assert bench.run() == 1
    assert [row.state for row in bench.rows()] == [
        DeliveryState.SUPERSEDED,
        DeliveryState.DELIVERED,
    ]


def test_a_crash_between_sending_and_recording_leaves_one_object(bench: Bench) -> None:
    """The lease runs out, the same bytes go again, the destination keeps one."""
    study = bench.enqueue(("sr",))

    class Killed(BaseException):
        pass

    def die(ds: Dataset) -> None:
        bench.pacs.sent.append(str(ds.SOPInstanceUID))
        bench.pacs.kept[str(ds.SOPInstanceUID)] = b"first"
        raise Killed

    bench.pacs.on_send = die
    with pytest.raises(Killed):
        bench.run()
    assert bench.row().state == DeliveryState.SENDING
    bench.pacs.on_send = lambda _: None
    assert bench.run() == 0, "the lease still holds"
    bench.clock.forward(seconds=301)
    assert bench.run() == 1
    assert len(bench.pacs.sent) == 2
    assert len(bench.pacs.kept) == 1
    assert bench.row().attempts == 2
    assert bench.study(study).state == StudyState.DONE


def test_a_lost_lease_is_not_recorded(bench: Bench) -> None:
    """A sender slower than its lease leaves the verdict to the one who has the row now."""

    def stolen(_: Dataset) -> None:
        bench.clock.forward(seconds=301)
        with bench.sessions.begin() as session:
            delivery_claims.claim(
                session, owner="other", lease=dt.timedelta(seconds=300), now=bench.clock()
            )
        raise PeerRefused("PACS: no")

    study = bench.enqueue(("sr",))
    bench.pacs.on_send = stolen
    bench.run()
    row = bench.row()
    assert (row.state, row.lease_owner, row.attempts) == (DeliveryState.SENDING, "other", 2)
    assert bench.events(study, "delivery_dead") == []


def test_an_unreachable_destination_does_not_keep_the_others_waiting(bench: Bench) -> None:
    """One attempt finds out that it is down; its other rows wait without one of their own."""
    bench.channels["down"] = make.FakeChannel(
        on_send=refuse(Comprehensive3DSRStorage, PeerUnavailable("down: no connection"))
    )
    both = [make.destination("down"), make.destination("pacs")]
    for _ in range(5):
        bench.enqueue(("sr",), destinations=both)
    assert bench.run() == 6
    assert len(bench.pacs.sent) == 5
    waiting = bench.rows(destination="down")
    assert sorted(row.attempts for row in waiting) == [0, 0, 0, 0, 1]
    assert {row.next_attempt_at for row in waiting} == {bench.clock() + dt.timedelta(seconds=5)}
    bench.channels["down"].on_send = lambda _: None
    bench.clock.forward(seconds=5)
    assert bench.run() == 5


def test_late_instances_do_not_close_a_reopened_study(bench: Bench) -> None:
    """Deliveries of the old revision go on; the study stays where the new one put it."""
    study = bench.enqueue(("sr",))
    with bench.sessions.begin() as session:
        session.get_one(Study, study.id).state = StudyState.RECEIVING
    bench.run()
    assert bench.row().state == DeliveryState.DELIVERED
    assert bench.study(study).state == StudyState.RECEIVING


def test_threads_deliver_and_stop(bench: Bench) -> None:
    """Workers find what is enqueued later, and end when told."""
    outbox = bench.outbox()
    outbox.start()
    try:
        assert outbox.alive
        studies = [bench.enqueue(("sr", "seg")) for _ in range(4)]
        outbox.wake()
        peers.wait_for(
            "all studies done",
            lambda: all(bench.study(s).state == StudyState.DONE for s in studies),
        )
    finally:
        outbox.stop()
    assert not outbox.alive
    assert len(bench.pacs.sent) == len(set(bench.pacs.sent)) == 8


def test_a_restart_frees_what_its_earlier_life_held(bench: Bench) -> None:
    """After kill -9 nobody waits for the lease to run out."""
    study = bench.enqueue(("sr",))
    with bench.sessions.begin() as session:
        delivery_claims.claim(
            session, owner="outbox-0", lease=dt.timedelta(seconds=300), now=bench.clock()
        )
    outbox = bench.outbox()
    outbox.start()
    try:
        peers.wait_for("study done", lambda: bench.study(study).state == StudyState.DONE)
    finally:
        outbox.stop()


def test_a_database_that_is_away_does_not_end_the_threads(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop catches everything, waits, and goes on."""
    monkeypatch.setattr("agent.delivery.sender.TROUBLE_PAUSE_S", 0.01)
    outbox = bench.outbox()
    outbox.start()
    try:
        good, outbox._sessions = outbox._sessions, None
        outbox.wake()
        study = bench.enqueue(("sr",))
        outbox._sessions = good
        outbox.wake()
        peers.wait_for("study done", lambda: bench.study(study).state == StudyState.DONE)
        assert outbox.alive
    finally:
        outbox.stop()


def test_a_dead_delivery_retried_finishes_the_study(bench: Bench) -> None:
    """FAILED -> DELIVERING -> DONE, with its patience as if it were new."""
    study = bench.enqueue(("sr",))
    bench.pacs.on_send = refuse(Comprehensive3DSRStorage, PeerRefused("PACS: no"))
    bench.run()
    bench.pacs.on_send = lambda _: None
    bench.clock.forward(hours=100)
    with bench.sessions.begin() as session:
        orders.retry_delivery(session, bench.row().id, bench.clock(), who="radiologist")
    assert bench.study(study).state == StudyState.DELIVERING
    assert bench.events(study, "delivery_retried")[0].who == "radiologist"
    bench.run()
    assert bench.study(study).state == StudyState.DONE

"""The outbox's worker: order, retries, refusals, dead letters; every branch with fakes."""

from __future__ import annotations

import datetime as dt
from typing import Any

import structlog
from factories import outbox as make
from pydicom.uid import Comprehensive3DSRStorage, ParametricMapStorage

from agent.delivery import outbox as orders
from db.states import DeliveryState, StudyState
from dicom_nodes.errors import PeerBusy, PeerRefused, PeerUnavailable

Bench = Any  # tests/unit/agent/delivery/conftest.py


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
    bench.pacs.on_send = make.refusing(Comprehensive3DSRStorage, PeerBusy("PACS: out of resources"))
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
    bench.pacs.on_send = make.refusing(Comprehensive3DSRStorage, PeerBusy("PACS: not now"))
    for wait_s in (5, 10):
        assert bench.run() == 1
        bench.clock.forward(seconds=wait_s)
    assert bench.run() == 2
    assert bench.states() == {"sr": DeliveryState.PENDING, "seg": DeliveryState.DELIVERED}


def test_a_refused_class_does_not_hold_back_the_others(bench: Bench) -> None:
    """The parametric map is dead at once and raises the alarm; the rest arrives."""
    study = bench.enqueue(make.ALL)
    bench.pacs.on_send = make.refusing(
        ParametricMapStorage, PeerRefused("PACS: class not accepted")
    )
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
    bench.pacs.on_send = make.refusing(Comprehensive3DSRStorage, PeerRefused("PACS: no"))
    bench.run()
    assert bench.states() == {"sr": DeliveryState.DEAD, "seg": DeliveryState.DELIVERED}


def test_what_is_not_taken_in_time_is_a_dead_letter(bench: Bench) -> None:
    """After dead_after_hours the alarm is raised, not earlier."""
    study = bench.enqueue(("sr",))
    bench.pacs.on_send = make.refusing(Comprehensive3DSRStorage, PeerBusy("PACS: not now"))
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
    bench.pacs.on_send = make.refusing(Comprehensive3DSRStorage, ValueError("bad value 'Doe^Jane'"))
    bench.run()
    assert bench.row().state == DeliveryState.PENDING
    assert bench.row().last_error.startswith("ValueError")
    assert "Doe" not in bench.row().last_error


def test_an_unreachable_destination_does_not_keep_the_others_waiting(bench: Bench) -> None:
    """One attempt finds out that it is down; its other rows wait without one of their own."""
    bench.channels["down"] = make.FakeChannel(
        on_send=make.refusing(Comprehensive3DSRStorage, PeerUnavailable("down: no connection"))
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


def test_a_dead_delivery_retried_finishes_the_study(bench: Bench) -> None:
    """FAILED -> DELIVERING -> DONE, with its patience as if it were new."""
    study = bench.enqueue(("sr",))
    bench.pacs.on_send = make.refusing(Comprehensive3DSRStorage, PeerRefused("PACS: no"))
    bench.run()
    bench.pacs.on_send = lambda _: None
    bench.clock.forward(hours=100)
    with bench.sessions.begin() as session:
        orders.retry_delivery(session, bench.row().id, bench.clock(), who="radiologist")
    assert bench.study(study).state == StudyState.DELIVERING
    assert bench.events(study, "delivery_retried")[0].who == "radiologist"
    bench.run()
    assert bench.study(study).state == StudyState.DONE

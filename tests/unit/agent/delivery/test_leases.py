"""Leases, restarts, threads and newer revisions: nothing is lost, nothing doubled."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from factories import outbox as make
from factories import peers
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from agent.delivery.registry import Route
from agent.delivery.sender import Outbox
from agent.settings import DeliverySettings
from db.models import Study
from db.queries import delivery_claims
from db.states import DeliveryState, StudyState
from dicom_nodes.errors import PeerBusy, PeerRefused

Bench = Any  # tests/unit/agent/delivery/conftest.py


def test_a_newer_revision_supersedes_what_was_not_sent(bench: Bench) -> None:
    """Unsent results of revision 1 never arrive after revision 2 exists."""
    study = bench.enqueue(("sr", "seg"))
    bench.pacs.on_send = make.refusing(Comprehensive3DSRStorage, PeerBusy("PACS: not now"))
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


def test_a_long_send_keeps_its_lease(bench: Bench) -> None:
    """While an object is sent its lease is renewed, so that nobody else sends it beside us."""
    bench.enqueue(("sr",))
    routes = {"pacs": Route(bench.pacs)}
    settings = DeliverySettings(lease_s=0.2)
    box = Outbox(bench.sessions, routes, settings, bench.results, clock=bench.clock)

    def slow(_ds: object) -> None:
        first = bench.row().lease_until
        bench.clock.forward(seconds=0.15)
        peers.wait_for("a renewed lease", lambda: bench.row().lease_until != first)
        bench.clock.forward(seconds=0.15)
        with bench.sessions.begin() as session:
            assert delivery_claims.expire_leases(session, bench.clock()) == 0

    bench.pacs.on_send = slow
    assert box.run_once() == 1
    assert bench.row().state == DeliveryState.DELIVERED
    assert len(bench.pacs.sent) == 1

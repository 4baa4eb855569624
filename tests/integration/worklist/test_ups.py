"""Workitems over DIMSE, by pynetdicom as manager's client and as subscriber.

DCMTK's findscu proposes worklist and query/retrieve classes only, hence pynetdicom for C-FIND too.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from factories import arrivals, rows
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepWatch,
)
from sqlalchemy.orm import Session, sessionmaker

from agent.settings import PrioritySettings, UpsSettings
from agent.workitems import following, room
from agent.workitems.service import Workitems
from db.models import Study
from dicom_nodes import ups
from dicom_nodes.node import Node
from dicom_nodes.scp import ups as scp
from dicom_nodes.scp.server import StorageServer
from dicom_nodes.scp.settings import ServerSettings
from dicom_nodes.scu import ups as scu

PUSH, PULL, WATCH = UnifiedProcedureStepPush, UnifiedProcedureStepPull, UnifiedProcedureStepWatch
LOCK = "2.25.4711"


@dataclass
class Subscriber:
    """A workstation that takes events."""

    port: int = 0
    events: queue.Queue[tuple[int, str, Dataset]] = field(default_factory=queue.Queue)
    status: int = 0x0000

    def take(self, event: Any) -> tuple[int, None]:
        """Keep an event, or refuse it."""
        if self.status == 0x0000:
            uid = str(event.request.AffectedSOPInstanceUID)
            self.events.put((event.event_type, uid, event.event_information))
        return self.status, None


@dataclass
class Desk:
    """The manager behind our port, and whom it can reach."""

    sessions: sessionmaker[Session]
    port: int
    subscriber: Subscriber
    nodes: dict[str, Node]

    @property
    def node(self) -> Node:
        """Our port as others see it."""
        return Node("WLAGENT", "127.0.0.1", self.port, calling_ae="STATION")

    def ask(self, do: Any) -> Any:
        """Run something on an association of the workstation."""
        ae = AE("STATION")
        for one in (PUSH, PULL, WATCH):
            ae.add_requested_context(one)
        association = ae.associate("127.0.0.1", self.port, ae_title="WLAGENT")
        assert association.is_established
        try:
            return do(association)
        finally:
            association.release()

    def find(self, **keys: str) -> list[Dataset]:
        """C-FIND under Pull."""
        query = Dataset()
        query.ProcedureStepState = query.ScheduledProcedureStepPriority = ""
        query.PatientID = query.ProcedureStepLabel = ""
        request = Dataset()
        request.AccessionNumber = ""
        query.ReferencedRequestSequence = [request]
        for keyword, value in keys.items():
            setattr(query, keyword, value)
        found = self.ask(lambda a: list(a.send_c_find(query, PULL)))
        assert int(found[-1][0].Status) == 0x0000
        return [ds for _, ds in found[:-1]]

    def act(self, kind: int, uid: str, meta: str, **info: str) -> int:
        """N-ACTION."""
        ds = Dataset()
        for keyword, value in info.items():
            setattr(ds, keyword, value)
        status, _ = self.ask(lambda a: a.send_n_action(ds, kind, PUSH, uid, meta_uid=meta))
        return int(status.Status)

    def set(self, uid: str, **changes: Any) -> int:
        """N-SET."""
        ds = Dataset()
        for keyword, value in changes.items():
            setattr(ds, keyword, value)
        status, _ = self.ask(lambda a: a.send_n_set(ds, PUSH, uid, meta_uid=PULL))
        return int(status.Status)

    def study(self, **values: Any) -> str:
        """Add a study; the UID of its task."""
        with self.sessions.begin() as session:
            study = rows.study(session, **values)
            row = following.follow(session, study, rows.NOW, PrioritySettings())
            assert row is not None
            return row.uid

    def told(self) -> list[tuple[int, str, str]]:
        """Bring what is due; (event type, workitem, state) as it arrived."""
        room.bring(self.sessions, self.nodes, lambda: rows.NOW)
        events = []
        while not self.subscriber.events.empty():
            kind, uid, info = self.subscriber.events.get()
            events.append((kind, uid, str(info.get("ProcedureStepState", ""))))
        return events


@pytest.fixture(scope="module")
def subscriber() -> Iterator[Subscriber]:
    """A listening workstation."""
    made = Subscriber()
    ae = AE("STATION")
    ae.add_supported_context(UnifiedProcedureStepEvent, scu_role=True, scp_role=True)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, made.take)]
    )
    made.port = server.socket.getsockname()[1]
    yield made
    server.shutdown()


@pytest.fixture
def desk(tmp_path: Path, subscriber: Subscriber) -> Iterator[Desk]:
    """Our port over an empty record."""
    sessions = rows.sessions(tmp_path)
    nodes = {"STATION": Node("STATION", "127.0.0.1", subscriber.port, timeout_s=5)}
    workitems = Workitems(sessions, UpsSettings(accept_created=True), clock=lambda: rows.NOW)
    service = scp.service(workitems, nodes.__contains__)
    server = StorageServer(
        ServerSettings(port=0),
        arrivals.handler(tmp_path, sessions),
        contexts=service.contexts,
        evt_handlers=service.evt_handlers,
    )
    server.start()
    yield Desk(sessions, server.port, subscriber, nodes)
    server.stop()


def test_the_reading_list_comes_in_reading_order_and_matches_keys(desk: Desk) -> None:
    """STAT before HIGH, though both are HIGH on the wire; wildcards, states and sequences match."""
    for number, level in enumerate(("LOW", "HIGH", "STAT"), start=1):
        desk.study(number=number, priority=level)
    found = desk.find(ProcedureStepState="SCHEDULED")
    assert [(ds.PatientID, ds.ScheduledProcedureStepPriority) for ds in found] == [
        ("PAT0003", "HIGH"),
        ("PAT0002", "HIGH"),
        ("PAT0001", "LOW"),
    ]
    assert found[0].ReferencedRequestSequence[0].AccessionNumber == "ACC0003"
    assert len(desk.find(PatientID="PAT*2")) == 1
    assert len(desk.find(ScheduledProcedureStepPriority="HIGH")) == 2
    assert desk.find(ProcedureStepState="COMPLETED") == []


def test_a_performer_claims_sets_progress_and_completes(desk: Desk) -> None:
    """Only with its Transaction UID, which nobody else is told; the study is read in the end."""
    uid = desk.study(number=7, priority="STAT")
    claim = {"ProcedureStepState": "IN PROGRESS"}
    assert desk.act(1, uid, PULL, **claim) == ups.Status.WRONG_TRANSACTION
    assert desk.act(1, uid, PULL, **claim, TransactionUID=LOCK) == 0
    assert desk.act(1, uid, PULL, **claim, TransactionUID="2.25.9") == 0xC302
    progress = Dataset()
    progress.ProcedureStepProgress = "50"
    items = {"ProcedureStepProgressInformationSequence": [progress]}
    assert desk.set(uid, **items) == 0xC301
    assert desk.set(uid, **items, TransactionUID=LOCK) == 0

    status, ds = desk.ask(
        lambda a: a.send_n_get(
            [Tag("ProcedureStepState"), Tag("TransactionUID")], PUSH, uid, meta_uid=PULL
        )
    )
    assert (int(status.Status), ds.ProcedureStepState) == (0, "IN PROGRESS")
    assert not ds.get("TransactionUID")

    done = {"ProcedureStepState": "COMPLETED"}
    assert desk.act(1, uid, PULL, **done, TransactionUID="2.25.9") == 0xC301
    assert desk.act(1, uid, PULL, **done, TransactionUID=LOCK) == 0
    assert desk.act(1, uid, PULL, **done, TransactionUID=LOCK) == 0xB306
    assert desk.set(uid, **items, TransactionUID=LOCK) == 0xC300
    with desk.sessions() as session:
        assert session.query(Study).one().reading_state == "read"


def test_a_global_subscriber_is_told_of_what_is_and_of_what_comes(desk: Desk) -> None:
    """State, progress and the cancel request; suspended: nothing new; unsubscribed: nothing."""
    first = desk.study(number=1, priority="LOW")
    assert desk.act(3, ups.GLOBAL, WATCH, ReceivingAE="STATION", DeletionLock="FALSE") == 0
    assert desk.told() == [(1, first, "SCHEDULED")]
    second = desk.study(number=2, priority="STAT")
    desk.act(1, second, PULL, ProcedureStepState="IN PROGRESS", TransactionUID=LOCK)
    assert desk.act(2, second, PUSH, ReasonForCancellation="other reader") == 0
    assert desk.told() == [
        (1, second, "SCHEDULED"),
        (1, second, "IN PROGRESS"),
        (2, second, ""),
    ]
    assert desk.act(5, ups.GLOBAL, WATCH, ReceivingAE="STATION") == 0
    desk.study(number=3)
    desk.act(1, second, PULL, ProcedureStepState="COMPLETED", TransactionUID=LOCK)
    assert desk.told() == [(1, second, "COMPLETED")]
    assert desk.act(4, ups.GLOBAL, WATCH, ReceivingAE="STATION") == 0
    desk.study(number=4)
    assert desk.told() == []


def test_a_filtered_subscriber_is_told_of_what_matches(desk: Desk) -> None:
    """And one who left a workitem out is not told of it."""
    keys = {"ReceivingAE": "STATION", "ScheduledProcedureStepPriority": "HIGH"}
    assert desk.act(3, ups.FILTERED_GLOBAL, WATCH, **keys) == 0
    desk.study(number=1, priority="LOW")
    urgent = desk.study(number=2, priority="STAT")
    assert desk.told() == [(1, urgent, "SCHEDULED")]
    assert desk.act(4, urgent, WATCH, ReceivingAE="STATION") == 0
    desk.act(1, urgent, PULL, ProcedureStepState="IN PROGRESS", TransactionUID=LOCK)
    assert desk.told() == []


def test_events_wait_for_a_subscriber_that_is_away(desk: Desk, subscriber: Subscriber) -> None:
    """In their order; whom we cannot reach at all may not subscribe."""
    assert desk.act(3, ups.GLOBAL, WATCH, ReceivingAE="NOBODY") == 0xC308
    desk.act(3, ups.GLOBAL, WATCH, ReceivingAE="STATION")
    subscriber.status = 0x0110
    uid = desk.study(number=1)
    assert desk.told() == []
    subscriber.status = 0x0000
    desk.act(1, uid, PULL, ProcedureStepState="IN PROGRESS", TransactionUID=LOCK)
    later = rows.NOW.replace(year=2100)
    assert room.bring(desk.sessions, desk.nodes, lambda: later) == 2
    states = [subscriber.events.get()[2].ProcedureStepState for _ in range(2)]
    assert states == ["SCHEDULED", "IN PROGRESS"]


def test_our_own_client_creates_changes_and_cancels_at_a_manager(desk: Desk) -> None:
    """The channel's client against our own provider: created once, changed, canceled."""
    task, uid = Dataset(), "2.25.100"
    task.ProcedureStepState, task.TransactionUID = "SCHEDULED", ""
    task.ScheduledProcedureStepPriority, task.ProcedureStepLabel = "LOW", "Read"
    task.ScheduledProcedureStepStartDateTime = "20261123"
    task.InputReadinessState = "READY"
    changes = Dataset()
    changes.ScheduledProcedureStepPriority = "HIGH"
    assert scu.schedule(desk.node, uid, task, changes)
    assert desk.find()[0].ScheduledProcedureStepPriority == "LOW"
    assert scu.schedule(desk.node, uid, task, changes)
    assert [ds.ScheduledProcedureStepPriority for ds in desk.find()] == ["HIGH"]
    scu.cancel(desk.node, uid, "replaced")
    assert scu.state(desk.node, uid) is ups.State.CANCELED
    scu.cancel(desk.node, uid, "replaced")
    assert not scu.schedule(desk.node, uid, task, changes)
    assert scu.state(desk.node, "2.25.101") is None


def test_a_claimed_workitem_is_left_to_its_performer(desk: Desk) -> None:
    """Not an error: what we wanted read is being read."""
    uid = desk.study(number=1)
    desk.act(1, uid, PULL, ProcedureStepState="IN PROGRESS", TransactionUID=LOCK)
    task, changes = Dataset(), Dataset()
    task.ProcedureStepState = "SCHEDULED"
    task.ScheduledProcedureStepPriority, task.ProcedureStepLabel = "LOW", "Read"
    task.ScheduledProcedureStepStartDateTime = "20261123"
    task.InputReadinessState = "READY"
    changes.ScheduledProcedureStepPriority = "HIGH"
    assert not scu.schedule(desk.node, uid, task, changes)

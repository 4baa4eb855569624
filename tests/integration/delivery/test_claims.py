"""Claims and leases with several workers, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from typing import Any

import pytest
from factories import outbox as make
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from agent.delivery import outbox as orders
from agent.delivery.registry import Route
from db.models import Event, Study
from db.queries import delivery_claims
from db.states import DeliveryState, StudyState
from dicom_nodes.errors import PeerRefused, PeerUnavailable

Record = Any  # tests/integration/delivery/conftest.py
LEASE = dt.timedelta(seconds=300)


class Watch(make.FakeChannel):
    """A channel that notices when a row is being sent twice at the same time."""

    def __init__(self) -> None:
        super().__init__(on_send=self._look)
        self.lock = threading.Lock()
        self.busy: Counter[str] = Counter()
        self.overlaps = 0
        self.pause = threading.Event()

    def _look(self, ds: Dataset) -> None:
        uid = str(ds.SOPInstanceUID)
        with self.lock:
            self.busy[uid] += 1
            self.overlaps += self.busy[uid] > 1
        self.pause.wait(0.01)
        with self.lock:
            self.busy[uid] -= 1


def run_workers(record: Record, channel: make.FakeChannel, workers: int) -> None:
    """Run as many outboxes at once until nothing is due."""
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            record.outbox({"pacs": Route(channel)}).run_once(f"worker-{number}")
        except Exception as error:  # noqa: BLE001  handed to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_two_workers_never_send_the_same_row_at_the_same_time(record: Record) -> None:
    """Six workers, thirty rows: each row is sent once, none twice, none lost."""
    studies = [record.enqueue(("sr", "seg", "sc")) for _ in range(10)]
    channel = Watch()
    run_workers(record, channel, 6)
    run_workers(record, channel, 1)  # a row held back by a report in flight is due afterwards
    assert channel.overlaps == 0
    assert len(channel.sent) == len(channel.kept) == 30
    assert {row.attempts for row in record.rows()} == {1}
    assert {record.study(s).state for s in studies} == {StudyState.DONE}


def test_the_last_delivery_closes_the_study_whoever_records_it(record: Record) -> None:
    """Two workers that finish a study's last two rows together move it to DONE exactly once."""
    for _ in range(5):
        study = record.enqueue(("seg", "sc"))
        both_sending = threading.Barrier(2, timeout=20)
        channel = make.FakeChannel(on_send=lambda _, b=both_sending: b.wait())
        run_workers(record, channel, 2)
        assert record.study(study).state == StudyState.DONE
        with record.sessions() as session:
            moves = session.query(Event).filter_by(study_id=study.id, to_state=StudyState.DONE)
            assert moves.count() == 1


def test_a_crash_between_sending_and_recording_is_repaired(record: Record) -> None:
    """The object is sent again after the lease, and the destination keeps one."""
    study = record.enqueue(("sr",))

    class Killed(BaseException):
        pass

    channel = make.FakeChannel()

    def die(ds: Dataset) -> None:
        channel.kept[str(ds.SOPInstanceUID)] = b""
        raise Killed

    channel.on_send = die
    outbox = record.outbox({"pacs": Route(channel)})
    with pytest.raises(Killed):
        outbox.run_once()
    channel.on_send = lambda _: None
    assert outbox.run_once() == 0
    record.clock.forward(seconds=301)
    assert outbox.run_once() == 1
    assert len(channel.kept) == 1
    assert record.study(study).state == StudyState.DONE


def test_an_expired_lease_goes_back_to_the_queue(record: Record) -> None:
    """The sweep frees expired leases and leaves running ones."""
    record.enqueue(("sr",))
    now = record.clock()
    with record.sessions.begin() as session:
        assert delivery_claims.claim(session, owner="a", lease=LEASE, now=now)
        assert delivery_claims.claim(session, owner="b", lease=LEASE, now=now) is None
        assert delivery_claims.expire_leases(session, now) == 0
        assert delivery_claims.expire_leases(session, now + LEASE) == 1
    with record.sessions.begin() as session:
        again = delivery_claims.claim(session, owner="b", lease=LEASE, now=now + LEASE)
        assert again is not None
        assert again.attempts == 2


def test_a_restart_frees_only_its_own_leases(record: Record) -> None:
    """The prefix is this node's; percent and underscore are ordinary characters."""
    for owner in ("node_1/d0", "node_1/d1", "nodeX1/d0"):
        record.enqueue(("sr",))
        with record.sessions.begin() as session:
            delivery_claims.claim(session, owner=owner, lease=LEASE, now=record.clock())
    with record.sessions.begin() as session:
        assert delivery_claims.release_all_of(session, "node_1", record.clock()) == 2
    assert sorted(record.states()) == ["pending", "pending", "sending"]


def test_retries_deferral_and_dead_letters_are_columns(record: Record) -> None:
    """Unreachable defers the destination; refused is dead; retried, everything arrives."""
    channel = make.FakeChannel()

    def raise_(error: Exception) -> Any:
        def on_send(ds: Dataset) -> None:
            if ds.SOPClassUID == Comprehensive3DSRStorage:
                raise error

        return on_send

    study = record.enqueue(("sr", "seg"))
    record.enqueue(("sr",))
    channel.on_send = raise_(PeerUnavailable("PACS: no connection"))
    outbox = record.outbox({"pacs": Route(channel)})
    assert outbox.run_once() == 1
    assert len({row.next_attempt_at for row in record.rows()}) == 1
    channel.on_send = raise_(PeerRefused("PACS: no"))
    record.clock.forward(seconds=5)
    assert outbox.run_once() == 3
    assert record.states() == ["dead", "delivered", "dead"]
    assert record.study(study).state == StudyState.FAILED
    channel.on_send = lambda _: None
    with record.sessions.begin() as session:
        assert orders.retry_dead(session, record.clock()) == 2
    assert outbox.run_once() == 2
    assert set(record.states()) == {DeliveryState.DELIVERED}
    assert record.study(study).state == StudyState.DONE


def test_a_newer_revision_supersedes_on_either_database(record: Record) -> None:
    """Older unsent rows are closed when the newer results are enqueued."""
    study = record.enqueue(("sr", "seg"))
    with record.sessions.begin() as session:
        again = session.get_one(Study, study.id)
        again.revision = 2
        make.enqueued(session, record.results, ("sr",), study=again, now=record.clock())
    channel = make.FakeChannel()
    assert record.outbox({"pacs": Route(channel)}).run_once() == 1
    assert record.states() == ["superseded", "superseded", "delivered"]


@pytest.mark.peers
def test_postgresql_workers_do_not_wait_for_each_other(postgresql: Record) -> None:
    """A row locked by an open transaction is skipped, not waited for."""
    postgresql.enqueue(("sr",))
    postgresql.enqueue(("sr",))
    now = postgresql.clock()
    with postgresql.sessions() as first, postgresql.sessions() as second:
        one = delivery_claims.claim(first, owner="a", lease=LEASE, now=now)
        two = delivery_claims.claim(second, owner="b", lease=LEASE, now=now)
        assert one is not None
        assert two is not None
        assert one.id != two.id

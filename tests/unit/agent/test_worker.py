"""The worker: claim, run the room, and whatever happens, leave the study where it can go on."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa
from factories import outbox as make
from factories import peers, rows
from sqlalchemy.orm import Session, sessionmaker

from agent import worker as workers
from agent.errors import AnalysisError, AnalysisInterrupted, ComposeError
from agent.rooms import Room
from agent.worker import Worker, WorkerSettings
from db.engine import reading
from db.models import Event, Study
from db.queries import claims, studies
from db.queries.claims import Claim
from db.states import StudyState

LEASE = dt.timedelta(seconds=60)
NAME = "Confidential^Name"


@dataclass
class Bench:
    """A database with one queued study, a clock, and a worker whose room is a function."""

    sessions: sessionmaker[Session]
    study_id: int
    clock: make.Clock = field(default_factory=make.Clock)
    observed: list[tuple[str, bool]] = field(default_factory=list)

    def worker(self, run: Callable[[Claim, str], None], lease: dt.timedelta = LEASE) -> Worker:
        """A worker for the analysis room."""
        room = Room("analysis", StudyState.QUEUED, StudyState.ANALYSING, run)
        settings = WorkerSettings(owner="node/model", lease=lease, max_attempts=3)
        return Worker(
            [room],
            self.sessions,
            settings,
            self.clock,
            lambda name, _seconds, ok: self.observed.append((name, ok)),
        )

    def finish(self, claim: Claim, _owner: str) -> None:
        """What a room does that works."""
        with self.sessions.begin() as session:
            study = session.get_one(Study, claim.study_id)
            studies.move(
                session, study, StudyState.COMPOSING, who="test", why="ok", now=self.clock()
            )

    @property
    def study(self) -> Study:
        """The study as it is now."""
        with reading(self.sessions) as session:
            return studies.get(session, self.study_id)

    @property
    def told(self) -> str:
        """Everything the timeline and the study say."""
        with reading(self.sessions) as session:
            whys = session.execute(sa.select(Event.why)).scalars()
            return " ".join([*whys, self.study.reason])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """One study waits for the model."""
    sessions = rows.sessions(tmp_path)
    with sessions.begin() as session:
        study = rows.study(session, state=StudyState.QUEUED, patient_name=NAME)
    return Bench(sessions, study.id)


def _raising(error: Exception) -> Callable[[Claim, str], None]:
    def run(_claim: Claim, _owner: str) -> None:
        raise error

    return run


def test_study_moves_on_and_the_metrics_are_told(bench: Bench) -> None:
    """One claimed study, one outcome; then there is nothing to do."""
    worker = bench.worker(bench.finish)

    assert worker.run_once() is True
    assert (bench.study.state, bench.study.lease_owner) == ("composing", None)
    assert bench.observed == [("analysis", True)]
    assert worker.run_once() is False


@pytest.mark.parametrize(("attempt", "delay_s"), [(1, 5), (2, 10)])
def test_passing_fault_is_tried_again_later_each_time(
    bench: Bench, attempt: int, delay_s: float
) -> None:
    """The study goes back to its queue, its reason shown, and waits longer every time."""
    worker = bench.worker(_raising(AnalysisError("the process died")))
    for _ in range(attempt):
        bench.clock.forward(hours=1)
        worker.run_once()

    study = bench.study
    assert (study.state, study.attempts) == ("queued", attempt)
    assert study.next_attempt_at == bench.clock() + dt.timedelta(seconds=delay_s)
    assert "analysis: the process died" in study.reason
    assert worker.run_once() is False


def test_last_attempt_fails_visibly(bench: Bench) -> None:
    """After max_attempts a person has to look; the reason says what happened."""
    worker = bench.worker(_raising(AnalysisError("the process died")))
    for _ in range(3):
        bench.clock.forward(hours=1)
        worker.run_once()

    assert (bench.study.state, bench.study.reason) == ("failed", "analysis: the process died")


def test_permanent_fault_fails_at_once(bench: Bench) -> None:
    """What cannot get better is not tried again."""
    bench.worker(_raising(ComposeError("no report"))).run_once()

    assert bench.study.state == "failed"
    assert bench.observed == [("analysis", False)]


def test_foreign_error_text_is_never_recorded(bench: Bench) -> None:
    """A library that quotes the dataset leaves its type and place, not its words."""
    bench.worker(_raising(ValueError(f"bad value {NAME}"))).run_once()

    assert "ValueError" in bench.study.reason
    assert NAME not in bench.told


def test_interrupted_study_is_given_back_without_an_attempt(bench: Bench) -> None:
    """A stop of the agent is no fault of the study: it waits at its place, at once due again."""
    worker = bench.worker(_raising(AnalysisInterrupted("the agent stops")))
    worker.run_once()

    study = bench.study
    assert (study.state, study.attempts, study.next_attempt_at) == ("queued", 0, None)
    assert study.lease_owner is None


def test_interruption_of_the_last_attempt_is_no_failure(bench: Bench) -> None:
    """Stopped during its third attempt, a study still has its third attempt."""
    failing = bench.worker(_raising(AnalysisError("the process died")))
    for _ in range(2):
        bench.clock.forward(hours=1)
        failing.run_once()
    bench.clock.forward(hours=1)
    bench.worker(_raising(AnalysisInterrupted("the agent stops"))).run_once()

    assert (bench.study.state, bench.study.attempts) == ("queued", 2)


def test_lease_is_renewed_while_the_room_works(bench: Bench) -> None:
    """A study that takes longer than its lease is not taken away from a living worker."""
    ends: list[dt.datetime | None] = []

    def slow(claim: Claim, owner: str) -> None:
        ends.append(bench.study.lease_until)
        bench.clock.forward(seconds=0.25)
        peers.wait_for("a renewal", lambda: bench.study.lease_until != ends[0], 10)
        bench.clock.forward(seconds=0.25)
        with bench.sessions.begin() as session:
            claims.expire(session, bench.clock())
        bench.finish(claim, owner)

    bench.worker(slow, dt.timedelta(seconds=0.3)).run_once()

    assert bench.study.state == "composing"


def test_failure_after_a_lost_lease_changes_nothing(bench: Bench) -> None:
    """Somebody else has the study now: what happened here does not touch it."""

    def lose(_claim: Claim, _owner: str) -> None:
        with bench.sessions.begin() as session:
            session.execute(sa.update(Study).values(lease_owner="other/model"))
        raise ComposeError("too late")

    bench.worker(lose).run_once()

    assert (bench.study.state, bench.study.lease_owner) == ("analysing", "other/model")


def test_loop_survives_a_database_that_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread goes on when the database is back, and ends when it is told to."""
    monkeypatch.setattr(workers, "FIRST_RETRY_S", 0.01)
    away = threading.Event()
    away.set()
    real = bench.sessions

    class Flaky:
        def begin(self) -> object:
            if away.is_set():
                raise sa.exc.OperationalError("select", {}, Exception("gone"))
            return real.begin()

    worker = bench.worker(bench.finish)
    worker._sessions = Flaky()
    worker.start()
    away.clear()
    peers.wait_for("the study to move on", lambda: bench.study.state == "composing", 10)
    worker.stop(10)

    assert not worker.alive

"""Proof of arrival with fakes: seen, missing, merged, down, committed, lost and forgotten."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from factories import outbox as make

from agent.delivery import outbox as orders
from agent.delivery.commitments import INVALID_ARGUMENT, Commitments
from agent.delivery.proof import Prover
from agent.delivery.registry import Proof, Route
from agent.settings import DeliverySettings
from db.models import Study
from db.states import DeliveryState, StudyState
from dicom_nodes import statuses
from dicom_nodes.answers import HeldObjects, HeldStudy
from dicom_nodes.commitment import NO_SUCH_INSTANCE, Report, Request
from dicom_nodes.errors import PeerRefused, PeerUnavailable

Bench = Any  # tests/unit/agent/delivery/conftest.py

SETTINGS = DeliverySettings(
    first_retry_s=5, backoff=2, max_retry_s=900, jitter=0, dead_after_hours=72, lease_s=300
)
READ_BACK = Proof(read_back_timeout_s=600)
COMMIT = Proof(commitment=True, commitment_timeout_s=60)


@dataclass
class Archive(make.FakeChannel):
    """A fake archive that holds what it was sent, under the identity it is told."""

    held: HeldStudy | None = None
    forgets: bool = False
    error: Exception | None = None
    on_ask: Callable[[Request], Report | None] = lambda _request: None
    looks: int = 0
    asked: list[Request] = field(default_factory=list)

    def held_objects(self, study_uid: str, series_uids: Collection[str]) -> HeldObjects:
        """What was sent, unless told otherwise."""
        self.looks += 1
        if self.error:
            raise self.error
        kept = {} if self.forgets else dict.fromkeys(self.kept, study_uid)
        return HeldObjects(self.held, kept)

    def ask_commitment(self, request: Request) -> Report | None:
        """Remember the request."""
        if self.error:
            raise self.error
        self.asked.append(request)
        return self.on_ask(request)


@dataclass
class Proving:
    """A bench whose one destination is an archive that must prove what it took."""

    bench: Bench
    terms: Proof
    archive: Archive = field(default_factory=Archive)
    outcomes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bench.channels["pacs"] = self.archive

    @property
    def routes(self) -> dict[str, Route]:
        """The one route."""
        return {"pacs": Route(self.archive, proof=self.terms)}

    @property
    def commitments(self) -> Commitments:
        """What reports are given to."""
        return Commitments(self.bench.sessions, self.routes, SETTINGS, self.bench.clock)

    def send(self, *kinds: str) -> Study:
        """A study whose objects the archive takes; it knows the patient."""
        study: Study = self.bench.enqueue(kinds or ("sr",))
        if self.archive.held is None:
            self.archive.held = HeldStudy(
                study.patient_id, study.issuer_of_patient_id, study.accession_number
            )
        self.push()
        return study

    def push(self) -> None:
        """Send what is due."""
        self.bench.run(proof=self.terms, check_identity=False)

    def look(self) -> int:
        """One pass."""
        prover = Prover(
            self.bench.sessions,
            self.routes,
            SETTINGS,
            self.bench.results,
            self.commitments,
            clock=self.bench.clock,
            observe=lambda _destination, _kind, outcome: self.outcomes.append(outcome),
        )
        return prover.run_once("pacs")


@pytest.fixture
def reading(bench: Bench) -> Proving:
    """Delivered = found again."""
    return Proving(bench, READ_BACK)


@pytest.fixture
def committing(bench: Bench) -> Proving:
    """Delivered = committed, then found again."""
    return Proving(bench, COMMIT)


def committed(request: Request) -> Report:
    """Everything is kept."""
    return Report(request.transaction_uid, request.references)


def test_sent_is_not_delivered_until_it_was_seen(reading: Proving, bench: Bench) -> None:
    """The study is done only when every object was read back; each step has its time."""
    study = reading.send("sr", "seg")
    assert bench.states() == {"sr": DeliveryState.SENT, "seg": DeliveryState.SENT}
    assert bench.study(study).state == StudyState.DELIVERING
    sent_at = bench.clock()
    bench.clock.forward(seconds=3)

    assert reading.look() == 2

    row = bench.row(kind="sr")
    assert (row.state, row.sent_at, row.seen_at) == ("delivered", sent_at, bench.clock())
    assert bench.study(study).state == StudyState.DONE
    assert reading.archive.looks == 1, "one question a study"
    assert reading.look() == 0


def test_an_archive_that_indexes_late_is_asked_again_and_then_sent_again(
    reading: Proving, bench: Bench
) -> None:
    """Not shown yet: asked with backoff; not shown for ten minutes: sent once more."""
    reading.archive.forgets = True
    study = reading.send()
    reading.look()
    row = bench.row()
    assert row.state == DeliveryState.SENT
    assert row.next_attempt_at == bench.clock() + dt.timedelta(seconds=5)
    assert "does not show the object" in row.last_error

    bench.clock.forward(seconds=601)
    reading.look()
    assert bench.row().state == DeliveryState.PENDING
    assert reading.outcomes == ["missing"]
    assert len(bench.events(study, "delivery_missing")) == 1

    reading.archive.forgets = False
    bench.clock.forward(seconds=60)
    reading.push()
    reading.look()
    assert len(reading.archive.sent) == 2
    assert bench.study(study).state == StudyState.DONE


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"patient_id": "MERGED"}, "patient ID"), ({"accession_number": "X9"}, "accession number")],
)
def test_a_merge_in_the_archive_stops_the_push_with_alarm(
    reading: Proving, bench: Bench, changed: dict[str, str], words: str
) -> None:
    """Found under another identity: dead, with what else of the study was on its way."""
    study = bench.enqueue(("sr", "seg"))
    values = {"patient_id": study.patient_id, "issuer_of_patient_id": "", "accession_number": ""}
    reading.archive.held = HeldStudy(**{**values, **changed})
    reading.archive.on_send = make.refusing(make.CLASSES["seg"], PeerUnavailable("pacs: away"))
    reading.push()
    assert bench.states() == {"sr": DeliveryState.SENT, "seg": DeliveryState.PENDING}

    with structlog.testing.capture_logs() as logs:
        reading.look()

    assert set(bench.states().values()) == {DeliveryState.DEAD}
    assert f"under another {words}" in bench.row(kind="sr").last_error
    assert bench.study(study).state == StudyState.FAILED
    assert len(bench.events(study, "delivery_mismatch")) == 1
    assert [e["log_level"] for e in logs if e["event"] == "delivery_mismatch"] == ["error"]
    assert reading.outcomes == ["mismatch"]
    assert study.patient_id not in bench.row(kind="sr").last_error


def test_an_archive_that_went_down_is_asked_when_it_is_back(reading: Proving, bench: Bench) -> None:
    """Down between sent and seen: one question a pause, nothing sent again, then done."""
    first, second = reading.send(), reading.send()
    reading.archive.held = None
    reading.archive.error = PeerUnavailable("pacs: no connection")
    reading.look()
    assert reading.archive.looks == 1
    assert {row.state for row in bench.rows()} == {DeliveryState.SENT}
    assert reading.look() == 0, "nobody is asked before its time"

    reading.archive.error = None
    reading.archive.held = HeldStudy(None, None, None)
    bench.clock.forward(seconds=5)
    reading.look()
    assert bench.study(first).state == bench.study(second).state == StudyState.DONE
    assert len(reading.archive.sent) == 2


def test_an_archive_that_never_answers_is_a_dead_letter_with_a_reason(
    reading: Proving, bench: Bench
) -> None:
    """After dead_after_hours the alarm is raised; the reason says that it was sent."""
    study = reading.send()
    reading.archive.error = PeerUnavailable("pacs: no connection")
    bench.clock.forward(hours=71)
    reading.look()
    assert bench.row().state == DeliveryState.SENT
    bench.clock.forward(hours=2)
    reading.look()
    row = bench.row()
    assert row.state == DeliveryState.DEAD
    assert "arrival could not be proven" in row.last_error
    assert "within 72 h" in row.last_error
    assert bench.study(study).state == StudyState.FAILED


def test_an_archive_that_refuses_the_question_is_a_dead_letter_at_once(
    reading: Proving, bench: Bench
) -> None:
    """C-FIND is not allowed there: somebody must mend it; the retry sends and looks again."""
    study = reading.send()
    reading.archive.error = PeerRefused("pacs: C-FIND refused")
    reading.look()
    assert bench.row().state == DeliveryState.DEAD

    reading.archive.error = None
    with bench.sessions.begin() as session:
        orders.retry_delivery(session, bench.row().id, bench.clock())
    reading.push()
    reading.look()
    assert bench.study(study).state == StudyState.DONE


def test_a_report_that_comes_at_once_commits_and_is_then_read_back(
    committing: Proving, bench: Bench
) -> None:
    """Sent → committed → seen, over one request for all objects of a study."""
    committing.archive.on_ask = committed
    study = committing.send("sr", "seg")
    committing.look()
    assert set(bench.states().values()) == {DeliveryState.COMMITTED}
    assert committing.archive.looks == 0
    committing.look()
    assert set(bench.states().values()) == {DeliveryState.DELIVERED}
    assert [len(request.references) for request in committing.archive.asked] == [2]
    assert bench.row(kind="sr").committed_at is not None
    assert bench.study(study).state == StudyState.DONE


def test_a_later_report_counts_once_and_an_unknown_one_is_refused(
    committing: Proving, bench: Bench
) -> None:
    """It comes to our node on another association, perhaps twice; strangers change nothing."""
    committing.send()
    committing.look()
    (request,) = committing.archive.asked
    assert bench.row().state == DeliveryState.SENT
    stranger = Report("2.25.1", request.references)
    assert committing.commitments.take(stranger) == INVALID_ARGUMENT
    assert bench.row().state == DeliveryState.SENT

    assert committing.commitments.take(committed(request)) == statuses.SUCCESS
    assert bench.row().state == DeliveryState.COMMITTED
    committing.look()
    failed = Report(request.transaction_uid, (), ((request.references[0], NO_SUCH_INSTANCE),))
    assert committing.commitments.take(failed) == statuses.SUCCESS
    assert bench.row().state == DeliveryState.DELIVERED


def test_commitment_that_is_not_reported_is_asked_again(committing: Proving, bench: Bench) -> None:
    """Under a new transaction; the old one's report is as good when it comes at last."""
    committing.send()
    committing.look()
    committing.look()
    assert len(committing.archive.asked) == 1
    bench.clock.forward(seconds=60)
    committing.look()
    first, second = committing.archive.asked
    assert first.transaction_uid != second.transaction_uid

    committing.commitments.take(committed(first))
    assert bench.row().state == DeliveryState.COMMITTED


def test_an_object_that_is_not_committed_is_sent_again(committing: Proving, bench: Bench) -> None:
    """Only the one that failed; it must then be committed anew."""

    def lose_the_second(request: Request) -> Report:
        kept, lost = request.references[:1], request.references[1:]
        return Report(request.transaction_uid, kept, tuple((r, NO_SUCH_INSTANCE) for r in lost))

    committing.archive.on_ask = lose_the_second
    study = committing.send("sr", "seg")
    committing.look()
    assert bench.states() == {"sr": DeliveryState.COMMITTED, "seg": DeliveryState.PENDING}
    assert "no such SOP instance (0x0112)" in bench.row(kind="seg").last_error

    committing.archive.on_ask = committed
    bench.clock.forward(seconds=5)
    committing.push()
    for _ in range(2):
        committing.look()
    assert len(committing.archive.sent) == 3
    assert bench.study(study).state == StudyState.DONE


def test_a_destination_that_left_the_configuration_is_a_dead_letter(
    reading: Proving, bench: Bench
) -> None:
    """Nobody can prove what arrived there."""
    reading.send()
    prover = Prover(
        bench.sessions, {}, SETTINGS, bench.results, reading.commitments, clock=bench.clock
    )
    prover.give_up_unknown()
    assert bench.row().state == DeliveryState.DEAD
    assert "not configured any more" in bench.row().last_error


def test_what_is_not_seen_yet_holds_back_nothing(reading: Proving, bench: Bench) -> None:
    """The other objects follow a report that was sent, not one that was seen."""
    reading.archive.forgets = True
    reading.send("sr", "seg", "sc")
    assert set(bench.states().values()) == {DeliveryState.SENT}


def test_a_result_file_that_is_gone_does_not_hold_up_the_others(
    reading: Proving, bench: Bench
) -> None:
    """What was sent cannot be compared without it: that row alone raises the alarm."""
    reading.send("sr", "seg")
    next(bench.results.rglob("seg.dcm")).unlink()
    reading.look()
    assert bench.states() == {"sr": DeliveryState.DELIVERED, "seg": DeliveryState.DEAD}
    assert "result file cannot be read" in bench.row(kind="seg").last_error

"""What rooms and operators order of the outbox."""

from __future__ import annotations

from typing import Any

import pytest
from factories import outbox as make

from agent.delivery import outbox
from agent.errors import DeliveryError
from db.models import Delivery, Study
from db.states import DeliveryState, StudyState

Bench = Any  # tests/unit/agent/delivery/conftest.py


def test_each_destination_gets_the_kinds_it_wants(bench: Bench) -> None:
    """One row per object and destination, shadow by destination."""
    wanted = [
        make.destination("pacs", send=("sr", "seg")),
        make.destination("viewer", send=("sc",)),
        make.destination("research", shadow=True),
    ]
    bench.enqueue(make.ALL, destinations=wanted)
    made = {(row.destination, row.kind): row.state for row in bench.rows()}
    assert made == {
        ("pacs", "sr"): DeliveryState.PENDING,
        ("pacs", "seg"): DeliveryState.PENDING,
        ("viewer", "sc"): DeliveryState.PENDING,
        **{("research", kind): DeliveryState.SHADOW for kind in make.ALL},
    }


def test_a_pack_in_shadow_mode_pushes_nowhere(bench: Bench) -> None:
    """The caller's switch covers every destination, and the study is done at once."""
    with bench.sessions.begin() as session:
        study, analysis, results = make.composed(session, bench.results)
        outbox.enqueue(
            session, study, analysis, results, [make.destination()], bench.clock(), shadow=True
        )
        assert study.state == StudyState.DONE
    assert set(bench.states().values()) == {DeliveryState.SHADOW}


def test_a_study_nobody_wants_results_of_is_done(bench: Bench) -> None:
    """Without destinations nothing stays open."""
    with bench.sessions.begin() as session:
        study, analysis, results = make.composed(session, bench.results)
        outbox.enqueue(session, study, analysis, results, [], bench.clock(), shadow=False)
        assert (study.state, study.reason) == (StudyState.DONE, "no destination wants a result")


def test_enqueueing_again_changes_nothing(bench: Bench) -> None:
    """A composition repeated after a crash finds its rows; what arrived is not sent again."""
    destinations = [make.destination()]
    with bench.sessions.begin() as session:
        study, analysis, results = make.composed(session, bench.results)
        for _ in range(2):
            outbox.enqueue(
                session, study, analysis, results, destinations, bench.clock(), shadow=False
            )
    bench.run()
    with bench.sessions.begin() as session:
        again = session.get_one(Study, study.id)
        again.state = StudyState.DELIVERING
        outbox.enqueue(session, again, analysis, results, destinations, bench.clock(), shadow=False)
        assert again.state == StudyState.DONE
    assert len(bench.rows()) == len(bench.pacs.sent) == 2


def test_enqueueing_again_takes_up_dead_letters(bench: Bench) -> None:
    """A study retried by an operator gets its dead deliveries back."""
    with bench.sessions.begin() as session:
        study, analysis, results = make.composed(session, bench.results, ("sr",))
        arguments = (analysis, results, [make.destination()], bench.clock())
        outbox.enqueue(session, study, *arguments, shadow=False)
    with bench.sessions.begin() as session:
        session.get_one(Delivery, bench.row().id).state = DeliveryState.DEAD
        outbox.enqueue(session, session.get_one(Study, study.id), *arguments, shadow=False)
    assert bench.row().state == DeliveryState.PENDING


def test_only_what_is_dead_or_waits_can_be_retried(bench: Bench) -> None:
    """Everything else says why not."""
    bench.enqueue(("sr",))
    with bench.sessions.begin() as session:
        with pytest.raises(DeliveryError, match="no delivery 4711"):
            outbox.retry_delivery(session, 4711, bench.clock())
        assert outbox.retry_delivery(session, bench.row().id, bench.clock()) == "pending"
    bench.run()
    with (
        bench.sessions.begin() as session,
        pytest.raises(DeliveryError, match="is delivered: nothing to retry"),
    ):
        outbox.retry_delivery(session, bench.row().id, bench.clock())


def test_all_dead_letters_of_a_destination_are_retried_at_once(bench: Bench) -> None:
    """Those of other destinations stay."""
    bench.enqueue(("sr",), destinations=[make.destination("pacs"), make.destination("other")])
    with bench.sessions.begin() as session:
        for row in bench.rows():
            session.get_one(Delivery, row.id).state = DeliveryState.DEAD
        assert outbox.retry_dead(session, bench.clock(), destination="pacs") == 1
    assert bench.row(destination="pacs").state == DeliveryState.PENDING
    assert bench.row(destination="other").state == DeliveryState.DEAD
    with bench.sessions.begin() as session:
        assert outbox.retry_dead(session, bench.clock()) == 1

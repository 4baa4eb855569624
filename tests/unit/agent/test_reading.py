"""A reader's level: it stands, it is told, and what the model may still do about it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from factories import rows
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from agent import reading
from agent.analysis import record
from agent.settings import Destination, Level, PrioritySettings
from db.models import Delivery, Event, Study

POLICY = PrioritySettings()
RIS = Destination(name="ris", kind="hl7", shadow=False)


@pytest.fixture
def session(sessions: sessionmaker[Session]) -> Iterator[Session]:
    """An empty database, SQLite and PostgreSQL."""
    with sessions() as session:
        yield session


def _stat(session: Session) -> Study:
    study = rows.study(session, priority="STAT")
    rows.analysis(session, study)
    return study


def _set(session: Session, study: Study, level: Level, why: str = "old bleed") -> None:
    reading.set_level(
        session,
        study,
        level,
        why,
        who="Dr. Reader",
        now=rows.NOW,
        policy=POLICY,
        destinations=[RIS],
    )


def test_a_reader_may_lower_what_the_model_raised(session: Session):
    """Level, rank, reason and an event that says who and why."""
    study = _stat(session)

    _set(session, study, Level.LOW)

    event = session.scalars(select(Event).filter_by(kind=reading.KIND)).one()
    assert (study.priority, study.priority_rank) == ("LOW", Level.LOW.rank)
    assert study.priority_reason == "set by Dr. Reader: old bleed"
    assert (event.from_state, event.to_state, event.why) == ("STAT", "LOW", "old bleed")
    assert event.who == "Dr. Reader"


def test_the_model_does_not_take_it_back_about_the_same_images(session: Session):
    """A triage, a changed order, another pack: none of them moves the study."""
    study = _stat(session)
    _set(session, study, Level.LOW)

    record.set_priority(session, study, POLICY, rows.NOW, who="analysis")

    assert study.priority == "LOW"
    said = session.scalars(select(Event).filter_by(kind="priority_set")).one()
    assert "which a reader set" in said.why


@pytest.mark.parametrize(
    ("set_to", "after"), [(Level.LOW, "STAT"), (Level.STAT, "STAT"), (Level.MEDIUM, "STAT")]
)
def test_later_images_may_raise_it(session: Session, set_to: Level, after: str):
    """Nobody has seen those; they never lower it."""
    study = _stat(session)
    _set(session, study, set_to)
    study.revision = 2
    rows.analysis(session, study, priority="STAT")

    record.set_priority(session, study, POLICY, rows.NOW, who="analysis")

    assert study.priority == after


def test_later_images_do_not_lower_it(session: Session):
    """The reader knows something that the model does not."""
    study = rows.study(session, priority="LOW")
    rows.analysis(session, study, rows.findings(rows.finding(probability=0.1)), priority="LOW")
    _set(session, study, Level.STAT, "seizing")
    study.revision = 2
    rows.analysis(session, study, rows.findings(rows.finding(probability=0.1)), priority="LOW")

    record.set_priority(session, study, POLICY, rows.NOW, who="analysis")

    assert study.priority == "STAT"


def test_whoever_is_told_of_priorities_is_told_of_each_change(session: Session):
    """Each change is news of its own; what was not sent yet is superseded."""
    study = _stat(session)

    _set(session, study, Level.HIGH)
    _set(session, study, Level.STAT)

    states = [d.state for d in session.scalars(select(Delivery).order_by(Delivery.id))]
    assert states == ["superseded", "pending"]


def test_nobody_is_told_while_the_pack_is_in_shadow_mode(session: Session):
    """The worklist follows the reader all the same."""
    study = rows.study(session)
    rows.analysis(session, study, shadow=True)

    _set(session, study, Level.STAT)

    assert session.scalars(select(Delivery)).all() == []
    assert study.priority == "STAT"

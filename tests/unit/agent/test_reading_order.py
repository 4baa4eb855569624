"""The reading order from index ranges is the order that `ordering.place` defines."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from agent import ordering, worklist
from agent.reading_order import OPEN, ReadingOrder, Tally, level_of
from agent.settings import Level, PrioritySettings
from agent.worklist import PageRequest, Sort, WorklistFilters
from db.models import Study
from db.queries import reading_order
from db.states import ReadingState

POLICY = PrioritySettings()


@pytest.fixture
def session(sessions: sessionmaker[Session]) -> Iterator[Session]:
    """An empty database, SQLite and PostgreSQL."""
    with sessions() as session:
        yield session


def _ward(session: Session, number: int = 80) -> list[Study]:
    """Studies of all levels, some of the same moment, some of the future."""
    chance = random.Random(7)
    minutes = [-5.0, 0.0, 10.0, 30.0, 240.0, 480.0, *(chance.random() * 2900 for _ in range(12))]
    return [
        rows.study(
            session,
            priority=chance.choice(["", "", "STAT", "HIGH", "MEDIUM", "LOW"]),
            ordered_priority=chance.choice(["", "ROUTINE", "STAT", "stat", "odd"]),
            reading_state=chance.choice(list(ReadingState)),
            first_instance_at=rows.minutes_ago(chance.choice(minutes)),
        )
        for _ in range(number)
    ]


def _expected(studies: list[Study]) -> list[tuple[int, Level, Level]]:
    placed = []
    for study in studies:
        if study.reading_state in OPEN:
            level = level_of(study.priority, study.ordered_priority, POLICY)
            since = study.first_instance_at
            place = ordering.place(level, since, rows.NOW, POLICY.target_minutes)
            placed.append((place, since, study.id, level))
    return [(i, level, place.level) for place, _, i, level in sorted(placed, key=lambda p: p[:3])]


def test_the_ranges_give_the_order_of_place(session: Session):
    """Whole list, any part of it, and each study's own place agree; ranks count from one."""
    studies = _ward(session)
    expected = _expected(studies)

    order = ReadingOrder(session, POLICY, rows.NOW)
    everything = order.part(0, order.total)

    assert [(s.study_id, s.level, s.effective_level) for s in everything] == expected
    assert [s.rank for s in everything] == list(range(1, len(expected) + 1))
    for start in (0, 7, len(expected) - 3):
        assert order.part(start, 9) == everything[start : start + 9]
    at = {s.study_id: s for s in everything}
    for study in studies:
        if study.reading_state in OPEN:
            assert order.standing_of(study) == at[study.id]


def test_the_counts_by_level_add_up(session: Session):
    """By the level a study stands at now."""
    expected = _expected(_ward(session))

    order = ReadingOrder(session, POLICY, rows.NOW)

    assert sum(order.by_level.values()) == order.total == len(expected)
    for level in Level:
        assert order.by_level[level] == sum(stands is level for _, _, stands in expected)


@pytest.mark.parametrize("ordered", [None, "STAT"])
def test_each_range_is_read_from_an_index(tmp_path: Path, ordered: str | None):
    """SQLite searches a covering index and sorts nothing."""
    stretch = reading_order.Stretch("unread", "LOW", ordered, rows.NOW, rows.NOW)
    shapes = (reading_order._shape(stretch),)
    values = {**dict.fromkeys(reading_order._values([stretch]), "2026"), "size": 50}
    with rows.sessions(tmp_path)() as session:
        for query in (reading_order._counting(shapes, False), reading_order._heading(shapes)):
            text = getattr(query, "element", query).text
            plan = session.execute(sa.text(f"EXPLAIN QUERY PLAN {text}"), values)
            said = " ".join(row[3] for row in plan)

            assert "USING COVERING INDEX" in said
            assert "TEMP B-TREE" not in said


def test_a_tally_is_counted_again_when_the_record_changed(session: Session):
    """A new event, and the next page sees it; nothing new, and nothing is counted."""
    tally = Tally(keep_s=60, long_list=1)
    study = rows.study(session, priority="LOW")
    rows.study(session, priority="LOW")

    def stat() -> int:
        return ReadingOrder(session, POLICY, rows.NOW, tally).by_level[Level.STAT]

    assert stat() == 0
    study.priority = "STAT"
    session.flush()
    assert stat() == 0
    rows.event(session, study)
    assert stat() == 1


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (Sort.NEWEST, ["b", "c", "a"]),
        (Sort.OLDEST, ["a", "c", "b"]),
        (Sort.PATIENT, ["c", "b", "a"]),
        (Sort.SCORE, ["c", "a", "b"]),
    ],
)
def test_another_sort_order_keeps_the_ranks(session: Session, sort: Sort, expected: list[str]):
    """The rank is the place in the reading order in all of them."""
    for name, minutes, level, patient, score in (
        ("a", 9, "LOW", "Z", 0.5),
        ("b", 1, "STAT", "M", 0.1),
        ("c", 5, "HIGH", "A", 0.9),
    ):
        rows.study(
            session,
            accession_number=name,
            first_instance_at=rows.minutes_ago(minutes),
            priority=level,
            patient_name=patient,
            priority_score=score,
        )

    page = worklist.entries(session, POLICY, rows.NOW, sort=sort)

    assert [entry.study.accession for entry in page.entries] == expected
    assert {e.study.accession: e.rank for e in page.entries} == {"b": 1, "c": 2, "a": 3}


def test_the_stat_filter_is_the_beginning_of_the_list(session: Session):
    """Read by index, with the same answer as any other level filter: given or climbed to."""
    expected = [i for i, _, stands in _expected(_ward(session)) if stands is Level.STAT]

    page = worklist.entries(
        session, POLICY, rows.NOW, WorklistFilters(level=Level.STAT), PageRequest(1, 200)
    )

    assert [entry.study.id for entry in page.entries] == expected
    assert page.total == len(expected)


def test_priors_are_counted_by_patient_and_issuer(session: Session):
    """The same number of another hospital is another patient; without a number there is none."""
    rows.study(session, accession_number="now", patient_id="7", priority="STAT")
    rows.study(session, patient_id="7", reading_state=ReadingState.READ)
    rows.study(session, patient_id="7", issuer_of_patient_id="ELSEWHERE")
    rows.study(session, accession_number="nobody", patient_id="")
    rows.study(session, patient_id="")

    page = worklist.entries(session, POLICY, rows.NOW)

    priors = {entry.study.accession: entry.priors for entry in page.entries}
    assert (priors["now"], priors["nobody"]) == (1, 0)


def test_an_entry_says_in_which_series_the_model_looked(session: Session):
    """By its number; also where the row was written before summaries were kept."""
    study = rows.study(session, priority="STAT")
    series = rows.series(session, study, number=4)
    found = rows.finding(grounding=rows.grounding(series.series_uid))
    rows.analysis(session, study, rows.findings(found))

    (entry,) = worklist.entries(session, POLICY, rows.NOW).entries

    assert entry.analysis is not None
    assert entry.analysis.series_number == 4

"""The worklist: one order for everybody, filtered and paged, with what the page needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from agent import worklist
from agent.settings import Level, PrioritySettings
from agent.worklist import PageRequest, WorklistEntry, WorklistFilters, WorklistPage
from db.models import Study
from db.states import DeliveryState, ReadingState, StudyState
from inference.findings import Acuity, Status

POLICY = PrioritySettings()


@pytest.fixture
def session(sessions: sessionmaker[Session]) -> Iterator[Session]:
    """An empty database, SQLite and PostgreSQL."""
    with sessions() as session:
        yield session


def _entries(session: Session, **filters: object) -> WorklistPage:
    return worklist.entries(session, POLICY, rows.NOW, WorklistFilters(**filters))  # type: ignore[arg-type]


def _only(session: Session) -> WorklistEntry:
    (entry,) = _entries(session).entries
    return entry


def _accessions(page: WorklistPage) -> list[str]:
    return [entry.study.accession for entry in page.entries]


def _study(session: Session, name: str, level: str, minutes: float, **values: object) -> Study:
    return rows.study(
        session,
        accession_number=name,
        priority=level,
        first_instance_at=rows.minutes_ago(minutes),
        **values,
    )


def test_urgent_studies_come_first_and_longer_waits_within_a_level(session: Session):
    """Level, then arrival; ranks count from one."""
    _study(session, "low", "LOW", 100)
    _study(session, "new stat", "STAT", 2)
    _study(session, "old stat", "STAT", 5)
    _study(session, "high", "HIGH", 20)

    page = _entries(session)

    assert _accessions(page) == ["old stat", "new stat", "high", "low"]
    assert [entry.rank for entry in page.entries] == [1, 2, 3, 4]


def test_an_overdue_study_climbs_and_says_so(session: Session):
    """Past one target it stands a level higher; its own level stays as it was given."""
    _study(session, "waited", "MEDIUM", POLICY.target_minutes[Level.MEDIUM] + 1)

    entry = _only(session)

    assert (
        entry.level,
        entry.effective_level,
        entry.overdue,
    ) == (Level.MEDIUM, Level.HIGH, True)
    assert POLICY.target_minutes[Level.MEDIUM] == entry.target_minutes


@pytest.mark.parametrize(
    ("ordered", "expected"), [("STAT", Level.STAT), ("routine", Level.LOW), ("", Level.MEDIUM)]
)
def test_a_study_without_a_result_stands_where_it_was_ordered(
    session: Session, ordered: str, expected: Level
):
    """Nothing ordered counts as `unread_failure`: the absence of a flag is not a negative."""
    rows.study(session, state=StudyState.QUEUED, ordered_priority=ordered)

    entry = _only(session)

    assert (expected, False) == (entry.level, entry.prioritized)


def test_in_shadow_mode_the_model_moves_nothing(session: Session):
    """The opinion is shown; the order decides the place."""
    shadow = _study(session, "shadow", "", 5, ordered_priority="ROUTINE")
    rows.analysis(session, shadow, shadow=True)
    _study(session, "high", "HIGH", 1)

    page = _entries(session)

    assert _accessions(page) == ["high", "shadow"]
    entry = page.entries[1]
    assert (entry.level, entry.shadow) == (Level.LOW, True)
    assert entry.analysis is not None
    assert Level.STAT is entry.analysis.level


def test_a_late_image_does_not_cost_a_study_its_place(session: Session):
    """A study waits from its first image on."""
    _study(session, "first", "HIGH", 20, last_instance_at=rows.minutes_ago(0))
    _study(session, "second", "HIGH", 10)

    assert _accessions(_entries(session)) == ["first", "second"]


def test_filters_leave_the_ranks_alone(session: Session):
    """The rank is the place in the whole list, whatever is shown of it."""
    _study(session, "ct", "STAT", 5)
    _study(session, "mr", "HIGH", 5, modalities="MR\\SR")

    page = _entries(session, modality="MR")

    assert _accessions(page) == ["mr"]
    assert page.entries[0].rank == 2
    assert (page.total, page.open_total) == (1, 2)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"state": StudyState.FAILED}, ["failed"]),
        ({"level": Level.STAT}, ["stat"]),
        ({"level": Level.HIGH}, ["climbed"]),
        ({"level": Level.MEDIUM}, ["climbed", "failed"]),
        ({"reading_states": (ReadingState.READ,)}, ["read"]),
        ({"reading_states": tuple(ReadingState)}, ["stat", "climbed", "failed", "read"]),
        ({"text": "HEMORR"}, ["stat"]),
        ({"text": "atrophy"}, []),
        ({"text": "ödem"}, ["climbed"]),
        ({"text": "%"}, []),
        ({"dead_letters": True}, ["stat"]),
        ({"modality": "M"}, []),
    ],
)
def test_each_filter_shows_what_it_names(
    session: Session, filters: dict[str, object], expected: list[str]
):
    """A level filter finds what was given it or climbed to it; text needs a present finding."""
    stat = _study(session, "stat", "STAT", 5)
    said = rows.analysis(session, stat, rows.findings(rows.finding(), rows.finding("atrophy", 0.1)))
    rows.delivery(session, rows.result(session, said), state=DeliveryState.DEAD)
    climbed = _study(session, "climbed", "MEDIUM", 250)
    rows.analysis(session, climbed, rows.findings(rows.finding("mass", display="Hirnödem")))
    _study(session, "failed", "MEDIUM", 5, state=StudyState.FAILED)
    _study(session, "read", "STAT", 5, reading_state=ReadingState.READ)

    assert expected == _accessions(_entries(session, **filters))


def test_a_read_study_has_no_rank_and_comes_last(session: Session):
    """It is not waiting, and not overdue however old."""
    _study(session, "read", "STAT", 500, reading_state=ReadingState.READ)
    _study(session, "open", "LOW", 1)

    page = _entries(session, reading_states=tuple(ReadingState))

    assert [(e.rank, e.overdue) for e in page.entries] == [(1, False), (None, False)]


def test_pages_cut_the_list_and_a_page_too_far_is_the_last(session: Session):
    """Seven studies on pages of three are three pages."""
    for n in range(7):
        _study(session, f"s{n}", "HIGH", 20 - n)

    def page(number: int) -> WorklistPage:
        return worklist.entries(session, POLICY, rows.NOW, None, PageRequest(number, 3))

    assert _accessions(page(2)) == ["s3", "s4", "s5"]
    assert (page(99).number, _accessions(page(99))) == (3, ["s6"])
    assert page(1).pages == 3


def test_an_entry_shows_findings_above_threshold_urgent_first(session: Session):
    """An urgent doubtful finding stands before a routine certain one; absent ones are not there."""
    study = rows.study(session, priority="STAT", priority_reason="because")
    rows.analysis(
        session,
        study,
        rows.findings(
            rows.finding("atrophy", 0.99, acuity=Acuity.ROUTINE),
            rows.finding("mass", 0.2),
            rows.finding("subdural", 0.6, grounding=rows.grounding()),
        ),
    )

    analysis = _only(session).analysis

    assert analysis is not None
    assert [(f.label, f.probability) for f in analysis.findings] == [
        ("subdural", 0.6),
        ("atrophy", 0.99),
    ]
    assert analysis.pictured is analysis.findings[0]
    assert (
        analysis.pack.name,
        analysis.pack.version,
        analysis.reason,
    ) == ("demo-head", "1.0.0", "because")
    assert "not for clinical use" in analysis.pack.notice


def test_the_latest_revision_speaks_and_says_when_it_is_outdated(session: Session):
    """Late images open a revision; until it is analysed the previous answer is marked."""
    study = rows.study(session, revision=1)
    rows.analysis(session, study)
    study.revision = 2
    rows.analysis(session, study, rows.findings(status=Status.PARTIAL, reason="gap"))
    study.revision = 3
    session.flush()

    analysis = _only(session).analysis

    assert analysis is not None
    assert (
        analysis.revision,
        analysis.current,
        analysis.status,
        analysis.status_reason,
    ) == (2, False, "partial", "gap")


def test_deliveries_are_summed_up_by_what_they_mean(session: Session):
    """Delivered, still to send, given up, held back; those of older analyses do not count."""
    study = rows.study(session, revision=1)
    old = rows.result(session, rows.analysis(session, study))
    rows.delivery(session, old, state=DeliveryState.DELIVERED)
    study.revision = 2
    new = rows.result(session, rows.analysis(session, study))
    for name, state in enumerate(DeliveryState):
        rows.delivery(session, new, destination=f"d{name}", state=state)

    deliveries = _only(session).deliveries

    assert (
        deliveries.delivered,
        deliveries.open,
        deliveries.dead,
        deliveries.shadow,
    ) == (1, 4, 1, 1)


def test_counts_by_level_are_of_the_whole_open_list(session: Session):
    """What the chips on top of the page show."""
    _study(session, "a", "STAT", 5)
    _study(session, "b", "LOW", 5)
    _study(session, "c", "STAT", 5, reading_state=ReadingState.READ)

    page = _entries(session, level=Level.LOW)

    assert page.open_by_level == {Level.STAT: 1, Level.HIGH: 0, Level.MEDIUM: 0, Level.LOW: 1}


def test_one_study_is_found_at_its_place(session: Session):
    """`entry` agrees with the list; an unknown study is None."""
    _study(session, "first", "STAT", 5)
    second = _study(session, "second", "LOW", 5)

    entry = worklist.entry(session, POLICY, rows.NOW, second.id)

    assert entry is not None
    assert entry.rank == 2
    assert worklist.entry(session, POLICY, rows.NOW, 999) is None

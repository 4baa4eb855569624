"""The assembly sweep on a real database: completing, reopening, revisions."""

from __future__ import annotations

import datetime as dt

import pytest
from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from agent.assembly import sweep
from agent.settings import AssemblySettings
from db.models import Event, Study
from db.states import StudyState

NOW = rows.NOW
SETTINGS = AssemblySettings(quiet_s=30)


def receiving(session: Session, **values: object) -> Study:
    """A study of ten instances that has been quiet for a minute."""
    return rows.study(
        session,
        **{
            "state": StudyState.RECEIVING,
            "revision": 0,
            "instance_count": 10,
            "assembled_count": 0,
            "first_instance_at": rows.minutes_ago(5),
            "last_instance_at": rows.minutes_ago(1),
            **values,
        },
    )


def image(session: Session, study: Study, modality: str = "CT") -> None:
    """One more received instance of the study."""
    rows.instance(session, rows.series(session, study, modality=modality))


def state_of(sessions: sessionmaker[Session], study_id: int) -> tuple[str, int]:
    """State and revision as committed."""
    with sessions() as session:
        study = session.get_one(Study, study_id)
        return study.state, study.revision


def test_a_quiet_study_is_assembled_once(sessions: sessionmaker[Session]) -> None:
    """It gets revision 1, an event that says why, and is not taken twice."""
    with sessions.begin() as session:
        study = receiving(session)

    assert sweep.sweep(sessions, SETTINGS, NOW) == 1
    assert sweep.sweep(sessions, SETTINGS, NOW) == 0

    assert state_of(sessions, study.id) == (StudyState.ASSEMBLED, 1)
    with sessions() as session:
        events = session.query(Event).filter_by(study_id=study.id, to_state="assembled").all()
        assert [e.why for e in events] == ["quiet for 30 s"]


@pytest.mark.parametrize(
    "state", [StudyState.DONE, StudyState.SKIPPED, StudyState.FAILED, StudyState.DELIVERING]
)
def test_late_instances_open_a_new_revision(
    sessions: sessionmaker[Session], state: StudyState
) -> None:
    """An analysed study with more instances than were assembled is read again as revision 2."""
    with sessions.begin() as session:
        study = receiving(
            session, state=state, revision=1, instance_count=12, assembled_count=10,
            last_instance_at=NOW,
        )  # fmt: skip
        rows.analysis(session, study, revision=1)
        image(session, study)

    sweep.sweep(sessions, SETTINGS, NOW)

    assert state_of(sessions, study.id) == (StudyState.RECEIVING, 1)
    sweep.sweep(sessions, SETTINGS, NOW + dt.timedelta(seconds=31))
    assert state_of(sessions, study.id) == (StudyState.ASSEMBLED, 2)


@pytest.mark.parametrize("state", [StudyState.ANALYSING, StudyState.COMPOSING])
def test_a_study_at_work_is_not_pulled_away(
    sessions: sessionmaker[Session], state: StudyState
) -> None:
    """Late instances wait until the room is done; the count tells later."""
    with sessions.begin() as session:
        study = receiving(session, state=state, revision=1, instance_count=12, assembled_count=10)

    sweep.sweep(sessions, SETTINGS, NOW)

    assert state_of(sessions, study.id)[0] == state


def test_a_study_reopened_before_its_analysis_keeps_its_revision(
    sessions: sessionmaker[Session],
) -> None:
    """Revisions count analyses, not packets."""
    with sessions.begin() as session:
        study = receiving(
            session, state=StudyState.QUEUED, revision=1, instance_count=12, assembled_count=10
        )
        image(session, study)

    sweep.sweep(sessions, SETTINGS, NOW)

    assert state_of(sessions, study.id) == (StudyState.ASSEMBLED, 1)


def test_a_late_report_does_not_reopen_a_study(sessions: sessionmaker[Session]) -> None:
    """Else the radiologist's own report would have the model read every study again."""
    with sessions.begin() as session:
        study = receiving(
            session, state=StudyState.DONE, revision=1, instance_count=11, assembled_count=10
        )
        image(session, study, "SR")

    sweep.sweep(sessions, SETTINGS, NOW)
    sweep.sweep(sessions, SETTINGS, NOW)

    assert state_of(sessions, study.id) == (StudyState.DONE, 1)
    with sessions() as session:
        kept = session.query(Event).filter_by(study_id=study.id, kind="late_objects_kept").all()
        assert len(kept) == 1


def test_the_archives_count_completes_early(sessions: sessionmaker[Session]) -> None:
    """Asked once the study is quiet for a moment; a count that is not reached waits on."""
    with sessions.begin() as session:
        reached = receiving(session, last_instance_at=NOW - dt.timedelta(seconds=3))
        short = receiving(session, last_instance_at=NOW - dt.timedelta(seconds=3))
    counts = {reached.id: 10, short.id: 11}

    sweep.sweep(sessions, SETTINGS, NOW, lambda study: counts[study.id])

    assert state_of(sessions, reached.id)[0] == StudyState.ASSEMBLED
    assert state_of(sessions, short.id)[0] == StudyState.RECEIVING

"""Studies by name: find, change state with an event, reopen for late instances."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session, selectinload

from db import states
from db.models import Analysis, Event, Instance, Result, Series, Study
from db.states import StudyState

#: States in which no room is at work, so that late instances may reopen the study at once.
REOPENABLE = (
    StudyState.ASSEMBLED,
    StudyState.QUEUED,
    StudyState.DELIVERING,
    StudyState.DONE,
    StudyState.SKIPPED,
    StudyState.FAILED,
)


def get(session: Session, study_id: int) -> Study:
    """The study with its series; raises NoResultFound for an unknown id."""
    query = sa.select(Study).where(Study.id == study_id).options(selectinload(Study.series))
    return session.execute(query).scalar_one()


def receiving(session: Session) -> Sequence[Study]:
    """Studies whose instances are arriving."""
    query = (
        sa.select(Study)
        .where(Study.state == StudyState.RECEIVING, Study.instance_count > 0)
        .order_by(Study.last_instance_at)
        .options(selectinload(Study.series))
    )
    return session.execute(query).scalars().all()


def with_late_instances(session: Session) -> Sequence[Study]:
    """Studies that were assembled with fewer instances than they have now."""
    query = sa.select(Study).where(
        Study.state.in_(REOPENABLE), Study.instance_count > Study.assembled_count
    )
    return session.execute(query).scalars().all()


def image_count(session: Session, study_id: int, modalities: Collection[str]) -> int:
    """Distinct instances of the study in series of these modalities, our own results left out."""
    query = (
        sa.select(sa.func.count(sa.distinct(Instance.sop_uid)))
        .join(Series, Series.id == Instance.series_id)
        .where(
            Instance.study_id == study_id,
            Series.own_result.is_(False),
            Series.modality.in_(modalities),
        )
    )
    return session.execute(query).scalar_one()


def move(
    session: Session, study: Study, to: StudyState, *, who: str, why: str, now: dt.datetime
) -> None:
    """Change state through the table of legal moves, with its event; ends any lease.

    Raises:
        db.states.IllegalMoveError: the table does not allow the move.
    """
    states.check_move(StudyState(study.state), to)
    session.add(
        Event(
            study_id=study.id,
            at=now,
            who=who,
            kind="state_changed",
            from_state=study.state,
            to_state=to,
            why=why,
        )
    )
    study.state = to
    study.reason = why
    study.lease_owner = study.lease_until = study.next_attempt_at = None
    study.attempts = 0


def note(
    session: Session, study_id: int, *, who: str, kind: str, why: str, now: dt.datetime
) -> None:
    """Add a line to the study's timeline without a change of state."""
    session.add(Event(study_id=study_id, at=now, who=who, kind=kind, why=why))


def has_analysis(session: Session, study: Study) -> bool:
    """Whether any pack has analysed the study's current revision."""
    query = sa.select(Analysis.id).where(
        Analysis.study_id == study.id, Analysis.revision == study.revision
    )
    return session.execute(query).first() is not None


def is_analysed(session: Session, study: Study) -> bool:
    """Whether every pack that routing named has analysed the current revision."""
    done = len(current_analyses(session, study))
    return done > 0 and done >= len(study.packs)


def analyses(session: Session, study_id: int) -> Sequence[Analysis]:
    """All analyses of a study, oldest revision first, then in the order they were made."""
    query = (
        sa.select(Analysis)
        .where(Analysis.study_id == study_id)
        .order_by(Analysis.revision, Analysis.created_at, Analysis.id)
    )
    return session.execute(query).scalars().all()


def current_analyses(session: Session, study: Study) -> Sequence[Analysis]:
    """The analyses of the study's current revision, in the order they were made."""
    query = (
        sa.select(Analysis)
        .where(Analysis.study_id == study.id, Analysis.revision == study.revision)
        .order_by(Analysis.created_at, Analysis.id)
    )
    return session.execute(query).scalars().all()


def result_series(session: Session, study_id: int) -> set[str]:
    """Series that this agent wrote for a study."""
    query = sa.select(Result.series_uid).where(Result.study_id == study_id)
    return set(session.execute(query).scalars())


def newest_instances(session: Session, study_id: int) -> Sequence[tuple[Series, Instance]]:
    """The newest version of every instance of the study's own series, our results left out."""
    newest = (
        sa.select(Instance.sop_uid, sa.func.max(Instance.version).label("version"))
        .where(Instance.study_id == study_id)
        .group_by(Instance.sop_uid)
        .subquery()
    )
    query = (
        sa.select(Series, Instance)
        .join(Instance, Instance.series_id == Series.id)
        .join(
            newest,
            sa.and_(Instance.sop_uid == newest.c.sop_uid, Instance.version == newest.c.version),
        )
        .where(Instance.study_id == study_id, Series.own_result.is_(False))
        .order_by(Series.id, Instance.id)
    )
    return [(row[0], row[1]) for row in session.execute(query)]

"""Claim work with a lease: compare-and-set on SQLite, SKIP LOCKED on PostgreSQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Event, Study
from db.states import StudyState


@dataclass(frozen=True)
class Claim:
    """One study, ours until the lease ends."""

    study_id: int
    key: str
    state: StudyState
    attempts: int


#: Ordered so, a study is first in its queue, and alone.
FIRST = "STAT"


def claim(
    session: Session,
    takes: Sequence[StudyState],
    *,
    owner: str,
    lease: dt.timedelta,
    now: dt.datetime,
) -> Claim | None:
    """Lease the next study in one of the states; ordered STAT first, then the longest waiting.

    A queued study moves to ANALYSING with the claim, so that the page shows it. The caller commits.
    """
    study = session.execute(_due(takes, now).limit(1)).scalar_one_or_none()
    return None if study is None else _take(session, study, owner, lease, now)


def claim_mates(
    session: Session,
    first: Claim,
    number: int,
    *,
    owner: str,
    lease: dt.timedelta,
    now: dt.datetime,
) -> list[Claim]:
    """Lease up to `number` more queued studies for the same packs, to be analysed together.

    Only what waits already, only at their first attempt, and none beside a study ordered STAT: it
    would have to wait until its neighbors are read too.
    """
    study = session.get_one(Study, first.study_id)
    if number < 1 or study.ordered_priority.upper() == FIRST:
        return []
    query = _due([StudyState.QUEUED], now).where(Study.pack == study.pack, Study.attempts == 0)
    mates = session.execute(query.limit(number)).scalars().all()
    return [_take(session, mate, owner, lease, now) for mate in mates]


def claim_receiving(
    session: Session, study_id: int, *, owner: str, lease: dt.timedelta, now: dt.datetime
) -> Claim | None:
    """Lease a study while it is received, for its provisional analysis; assembly ends the lease."""
    query = _due([StudyState.RECEIVING], now).where(Study.id == study_id, Study.revision == 0)
    study = session.execute(query).scalar_one_or_none()
    return None if study is None else _take(session, study, owner, lease, now)


def _due(takes: Sequence[StudyState], now: dt.datetime) -> sa.Select[Study]:
    return (
        sa.select(Study)
        .where(
            Study.state.in_(takes),
            sa.or_(Study.next_attempt_at.is_(None), Study.next_attempt_at <= now),
            sa.or_(Study.lease_until.is_(None), Study.lease_until <= now),
        )
        .order_by(
            sa.case((sa.func.upper(Study.ordered_priority) == FIRST, 0), else_=1),
            Study.assembled_at,
            Study.id,
        )
        .with_for_update(skip_locked=True)
    )


def _take(
    session: Session, study: Study, owner: str, lease: dt.timedelta, now: dt.datetime
) -> Claim:
    study.lease_owner, study.lease_until = owner, now + lease
    study.attempts += 1
    if study.state == StudyState.QUEUED:
        _enter_analysis(session, study, owner, now)
    return Claim(study.id, study.key, StudyState(study.state), study.attempts)


def renew(
    session: Session, study_id: int, *, owner: str, lease: dt.timedelta, now: dt.datetime
) -> bool:
    """Prolong our lease; False when it is no longer ours (somebody else works on the study)."""
    result = session.execute(
        sa.update(Study)
        .where(Study.id == study_id, Study.lease_owner == owner)
        .values(lease_until=now + lease)
    )
    return bool(getattr(result, "rowcount", 0))


def owned(session: Session, study_id: int, owner: str) -> Study | None:
    """The study, row-locked, if the lease is still ours: check in the transaction that records."""
    query = sa.select(Study).where(Study.id == study_id, Study.lease_owner == owner)
    return session.execute(query.with_for_update()).scalar_one_or_none()


def expire(session: Session, now: dt.datetime) -> int:
    """Give studies whose lease ran out back to their queue; returns how many."""
    query = (
        sa.select(Study)
        .where(Study.lease_until.is_not(None), Study.lease_until <= now)
        .with_for_update(skip_locked=True)
    )
    expired = session.execute(query).scalars().all()
    for study in expired:
        _release(session, study, who="schedule", why="the lease ran out", now=now)
    return len(expired)


def release_all_of(session: Session, owner_prefix: str, now: dt.datetime) -> int:
    """At start: free what an earlier life of this node still holds; returns how many."""
    query = sa.select(Study).where(Study.lease_owner.startswith(owner_prefix, autoescape=True))
    held = session.execute(query).scalars().all()
    for study in held:
        _release(session, study, who="start", why="the agent was restarted", now=now)
    return len(held)


def give_back(session: Session, study: Study, *, who: str, why: str, now: dt.datetime) -> None:
    """Return a claimed study to its queue at once; the attempt does not count."""
    study.attempts = max(study.attempts - 1, 0)
    _release(session, study, who=who, why=why, now=now)


def _enter_analysis(session: Session, study: Study, owner: str, now: dt.datetime) -> None:
    session.add(
        Event(
            study_id=study.id,
            at=now,
            who=owner,
            kind="state_changed",
            from_state=study.state,
            to_state=StudyState.ANALYSING,
            why=f"attempt {study.attempts}",
        )
    )
    study.state = StudyState.ANALYSING


def _release(session: Session, study: Study, *, who: str, why: str, now: dt.datetime) -> None:
    study.lease_owner = study.lease_until = None
    if study.state == StudyState.ANALYSING:
        session.add(
            Event(
                study_id=study.id,
                at=now,
                who=who,
                kind="state_changed",
                from_state=study.state,
                to_state=StudyState.QUEUED,
                why=why,
            )
        )
        study.state = StudyState.QUEUED


def retry_later(
    session: Session, study: Study, *, who: str, why: str, at: dt.datetime, now: dt.datetime
) -> None:
    """Give a study back after a fault that may pass; its attempts are kept."""
    session.add(
        Event(
            study_id=study.id, at=now, who=who, kind="attempt_failed", why=f"{why}; retry follows"
        )
    )
    study.next_attempt_at = at
    study.reason = why
    _release(session, study, who=who, why="waits for the next attempt", now=now)

"""Drafts by name: claim with a lease, find, give back (compare-and-set, as the other claims).

Every function takes a session and leaves the commit to its caller.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Draft, Study
from db.states import DraftState, StudyState

#: A study in one of these waits for the model, and goes before any draft.
_WAITS_FOR_MODEL = (StudyState.QUEUED, StudyState.ANALYSING)


@dataclass(frozen=True)
class ClaimedDraft:
    """One draft, ours until the lease ends."""

    id: int
    study_id: int
    study_key: str
    revision: int
    owner: str
    attempts: int
    created_at: dt.datetime


def claim(
    session: Session, *, owner: str, lease: dt.timedelta, now: dt.datetime, patience: dt.timedelta
) -> ClaimedDraft | None:
    """Lease the next due draft, the most urgent study first.

    While a study waits for the model, only drafts older than `patience` are given out: both need
    the encoder, and the priority comes first.
    """
    due = sa.or_(
        sa.and_(Draft.state == DraftState.WAITING, Draft.next_attempt_at <= now),
        sa.and_(Draft.state == DraftState.DRAFTING, Draft.lease_until <= now),
    )
    busy = sa.exists().where(Study.state.in_(_WAITS_FOR_MODEL)).correlate(None)
    query = (
        sa.select(Draft, Study.key)
        .join(Study, Study.id == Draft.study_id)
        .where(due, sa.or_(~busy, Draft.created_at <= now - patience))
        .order_by(Study.priority_rank, Draft.next_attempt_at, Draft.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Draft)
    )
    found = session.execute(query).first()
    if found is None:
        return None
    row, key = found
    row.state, row.attempts = DraftState.DRAFTING, row.attempts + 1
    row.lease_owner, row.lease_until = owner, now + lease
    return ClaimedDraft(
        row.id, row.study_id, key, row.revision, owner, row.attempts, row.created_at
    )


def owned(session: Session, claimed: ClaimedDraft) -> Draft | None:
    """The row, locked, if it is still ours."""
    query = sa.select(Draft).where(
        Draft.id == claimed.id,
        Draft.state == DraftState.DRAFTING,
        Draft.lease_owner == claimed.owner,
        Draft.attempts == claimed.attempts,
    )
    return session.execute(query.with_for_update()).scalar_one_or_none()


def renew(
    session: Session, claimed: ClaimedDraft, *, lease: dt.timedelta, now: dt.datetime
) -> bool:
    """Prolong our lease; False when it is no longer ours."""
    row = owned(session, claimed)
    if row is not None:
        row.lease_until = now + lease
    return row is not None


def release_all_of(session: Session, owner_prefix: str, now: dt.datetime) -> int:
    """At start: free what an earlier life of this node still holds; returns how many."""
    query = sa.select(Draft).where(
        Draft.state == DraftState.DRAFTING,
        Draft.lease_owner.startswith(owner_prefix, autoescape=True),
    )
    held = session.execute(query).scalars().all()
    for row in held:
        give_back(row, now)
        row.attempts = max(row.attempts - 1, 0)
    return len(held)


def give_back(row: Draft, at: dt.datetime) -> None:
    """Let it be claimed again, from then on."""
    row.state, row.next_attempt_at = DraftState.WAITING, at
    row.lease_owner = row.lease_until = None


def finish(row: Draft, state: DraftState, now: dt.datetime) -> None:
    """Nothing more will be done about it."""
    row.state, row.finished_at = state, now
    row.lease_owner = row.lease_until = None


def of_revision(session: Session, study_id: int, revision: int) -> Draft | None:
    """The draft of one revision of a study."""
    query = sa.select(Draft).where(Draft.study_id == study_id, Draft.revision == revision)
    return session.execute(query).scalar_one_or_none()


def newest(session: Session, study_id: int) -> Draft | None:
    """The draft of the highest revision that has one."""
    query = sa.select(Draft).where(Draft.study_id == study_id).order_by(Draft.revision.desc())
    return session.scalars(query.limit(1)).first()


def triage_of(session: Session, study_id: int, revision: int) -> str:
    """The triage of one revision as JSON; empty when there is none."""
    query = sa.select(Draft.triage).where(Draft.study_id == study_id, Draft.revision == revision)
    return session.execute(query).scalar_one_or_none() or ""


def supersede_older(session: Session, study_id: int, revision: int, now: dt.datetime) -> None:
    """Drafts of earlier revisions are not asked for any more; who writes one loses the lease."""
    query = sa.select(Draft).where(
        Draft.study_id == study_id,
        Draft.revision < revision,
        Draft.state.in_([DraftState.WAITING, DraftState.DRAFTING]),
    )
    for row in session.execute(query).scalars():
        finish(row, DraftState.SUPERSEDED, now)

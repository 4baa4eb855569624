"""Workitems, subscriptions and events by name."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Instance, Series, Study, Workitem, WorkitemEvent, WorkitemSubscription
from db.states import ReadingState

SCHEDULED, IN_PROGRESS = "SCHEDULED", "IN PROGRESS"
COMPLETED, CANCELED = "COMPLETED", "CANCELED"
UNFINISHED, FINISHED = (SCHEDULED, IN_PROGRESS), (COMPLETED, CANCELED)

_OPEN = (ReadingState.UNREAD, ReadingState.READING)
_PAGE = 200


def find(session: Session, uid: str) -> Workitem | None:
    """A workitem by its UID."""
    return session.execute(sa.select(Workitem).where(Workitem.uid == uid)).scalars().first()


def locked(session: Session, uid: str) -> tuple[Workitem | None, Study | None]:
    """A workitem to be changed, and its study if it is one's reading task; both locked.

    The study first, as everybody does who changes both.
    """
    found = find(session, uid)
    study = None
    if found is not None and found.own:
        query = sa.select(Study).where(Study.study_uid == found.study_uid)
        study = session.execute(query.with_for_update()).scalars().first()
    if found is not None:
        session.refresh(found, with_for_update=True)
    return found, study


def newest_of_study(session: Session, study_uid: str) -> Workitem | None:
    """The latest reading task of a study."""
    query = (
        sa.select(Workitem)
        .where(Workitem.study_uid == study_uid, Workitem.own)
        .order_by(Workitem.number.desc())
        .limit(1)
        .with_for_update()
    )
    return session.execute(query).scalars().first()


def add(session: Session, row: Workitem) -> Workitem:
    """Add a workitem; its id is known afterwards."""
    session.add(row)
    session.flush()
    return row


def in_order(
    session: Session,
    *,
    values: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Workitem]:
    """Workitems in reading order, page by page; `values` narrows by columns."""
    query = sa.select(Workitem).order_by(Workitem.rank, Workitem.id)
    for column, wanted in (values or {}).items():
        query = query.where(getattr(Workitem, column).in_(wanted))
    after: tuple[int, int] | None = None
    while True:
        part = query
        if after is not None:
            part = query.where(sa.tuple_(Workitem.rank, Workitem.id) > after)
        found = session.execute(part.limit(_PAGE)).scalars().all()
        yield from found
        if len(found) < _PAGE:
            return
        after = (found[-1].rank, found[-1].id)


def behind(session: Session, ordered: Mapping[str, int], unknown: int, limit: int) -> list[int]:
    """Ids of studies whose reading task is missing, or says something else than they do.

    Args:
        session: to ask.
        ordered: rank of an ordered priority, of studies without a level of their own.
        unknown: rank of an order that says nothing.
        limit: at most so many.
    """
    by_order = [
        (sa.and_(Study.priority == "", sa.func.upper(Study.ordered_priority) == name), rank)
        for name, rank in ordered.items()
    ]
    rank = sa.case((Study.priority != "", Study.priority_rank), *by_order, else_=unknown)
    state = sa.case((Study.reading_state == ReadingState.UNREAD, SCHEDULED), else_=IN_PROGRESS)
    differs = sa.or_(
        Study.reading_state.not_in(_OPEN),
        Workitem.state != state,
        Workitem.rank != rank,
        Workitem.patient_id != Study.patient_id,
        Workitem.accession_number != Study.accession_number,
        Workitem.changed_at < Study.assembled_at,
    )
    query = (
        sa.select(Study.id)
        .outerjoin(
            Workitem,
            sa.and_(
                Workitem.study_uid == Study.study_uid,
                Workitem.own,
                Workitem.state.in_(UNFINISHED),
            ),
        )
        .where(
            sa.or_(
                sa.and_(Workitem.id.is_(None), Study.reading_state.in_(_OPEN)),
                sa.and_(Workitem.id.is_not(None), differs),
            )
        )
        .order_by(Study.id)
        .limit(limit)
    )
    return list(session.execute(query).scalars())


def instances(session: Session, study_uid: str) -> list[tuple[str, str, str]]:
    """(series, SOP class, SOP instance) of what was received of a study, our results left out."""
    query = (
        sa.select(Series.series_uid, Instance.sop_class_uid, Instance.sop_uid)
        .join(Instance, Instance.series_id == Series.id)
        .join(Study, Study.id == Series.study_id)
        .where(Study.study_uid == study_uid, Series.own_result.is_(False), Instance.version == 0)
        .order_by(Series.id, Instance.id)
    )
    return [(row[0], row[1], row[2]) for row in session.execute(query)]


def subscriptions(session: Session, targets: Sequence[str]) -> list[WorkitemSubscription]:
    """Subscriptions to any of these."""
    query = sa.select(WorkitemSubscription).where(WorkitemSubscription.target.in_(targets))
    return list(session.execute(query.order_by(WorkitemSubscription.id)).scalars())


def subscription(session: Session, ae_title: str, target: str) -> WorkitemSubscription | None:
    """The subscription of one to one."""
    query = sa.select(WorkitemSubscription).where(
        WorkitemSubscription.ae_title == ae_title, WorkitemSubscription.target == target
    )
    return session.execute(query).scalars().first()


def unsubscribe_all(session: Session, ae_title: str) -> None:
    """Forget every subscription of an application entity, and what it was still to be told."""
    session.execute(
        sa.delete(WorkitemSubscription).where(WorkitemSubscription.ae_title == ae_title)
    )
    session.execute(sa.delete(WorkitemEvent).where(WorkitemEvent.ae_title == ae_title))


def subscribers(session: Session) -> set[str]:
    """Everybody who has subscribed to anything."""
    return set(session.execute(sa.select(WorkitemSubscription.ae_title).distinct()).scalars())


def last_id(session: Session) -> int:
    """The greatest id of a workitem."""
    return session.execute(sa.select(sa.func.coalesce(sa.func.max(Workitem.id), 0))).scalar_one()


def events_of(session: Session, ae_title: str, limit: int) -> list[WorkitemEvent]:
    """What one subscriber is to be told, oldest first."""
    query = sa.select(WorkitemEvent).where(WorkitemEvent.ae_title == ae_title)
    return list(session.execute(query.order_by(WorkitemEvent.id).limit(limit)).scalars())


def due_events(
    session: Session, ae_titles: Sequence[str], now: dt.datetime, limit: int
) -> list[WorkitemEvent]:
    """What these subscribers are to be told now, oldest first."""
    query = (
        sa.select(WorkitemEvent)
        .where(WorkitemEvent.ae_title.in_(ae_titles), WorkitemEvent.next_attempt_at <= now)
        .order_by(WorkitemEvent.id)
        .limit(limit)
    )
    return list(session.execute(query).scalars())


def told(session: Session, ids: Sequence[int]) -> None:
    """Drop events that were taken."""
    session.execute(sa.delete(WorkitemEvent).where(WorkitemEvent.id.in_(ids)))


def later(session: Session, ae_title: str, at: dt.datetime) -> None:
    """Everything for a subscriber that could not be reached waits."""
    session.execute(
        sa.update(WorkitemEvent)
        .where(WorkitemEvent.ae_title == ae_title)
        .values(next_attempt_at=at, attempts=WorkitemEvent.attempts + 1)
    )


def forget_events(session: Session, before: dt.datetime) -> int:
    """Drop events that are no news any more; returns how many."""
    done = session.execute(sa.delete(WorkitemEvent).where(WorkitemEvent.created_at < before))
    return int(getattr(done, "rowcount", 0))


def purge(session: Session, before: dt.datetime) -> int:
    """Remove finished workitems of an age, and reading tasks of studies that were removed.

    A subscriber's deletion lock keeps a finished workitem.
    """
    kept = sa.select(WorkitemSubscription.target).where(WorkitemSubscription.deletion_lock)
    old = sa.and_(Workitem.state.in_(FINISHED), Workitem.changed_at < before)
    gone = sa.and_(Workitem.own, Workitem.study_uid.not_in(sa.select(Study.study_uid)))
    done = session.execute(sa.delete(Workitem).where(sa.or_(old, gone), Workitem.uid.not_in(kept)))
    return int(getattr(done, "rowcount", 0))

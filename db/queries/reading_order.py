"""Ranges of the open worklist by index: counted, and read from their beginning.

SQLite and PostgreSQL read each range from `ix_study_place` (a level was committed) or
`ix_study_ordered_place` (the order decides), already in order of arrival.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Study

#: A moment of arrival and a study id: whoever is before it in arrival order.
Before = tuple[dt.datetime, int]


@dataclass(frozen=True)
class Stretch:
    """Studies of one reading state and level that arrived in ``(after, until]``.

    Attributes:
        priority: the committed level; empty = none.
        ordered: the ordered priority as received; None = any.
    """

    reading_state: str
    priority: str
    ordered: str | None
    after: dt.datetime | None
    until: dt.datetime | None


def orders_without_level(session: Session, reading_state: str) -> list[str]:
    """The ordered priorities that occur among studies without a level.

    Each step is one look into the index, whatever the number of studies (SQLite and PostgreSQL
    would both read all of them for a DISTINCT).
    """
    first = sa.select(sa.func.min(Study.ordered_priority).label("value")).where(
        Study.reading_state == reading_state, Study.priority == ""
    )
    found = first.cte("found", recursive=True)
    following = (
        sa.select(sa.func.min(Study.ordered_priority))
        .where(
            Study.reading_state == reading_state,
            Study.priority == "",
            Study.ordered_priority > found.c.value,
        )
        .correlate(found)
        .scalar_subquery()
    )
    found = found.union_all(sa.select(following).where(found.c.value.is_not(None)))
    query = sa.select(found.c.value).where(found.c.value.is_not(None))
    return list(session.execute(query).scalars())


def counts(
    session: Session, stretches: Sequence[Stretch], before: Sequence[Before] | None = None
) -> list[int]:
    """The number of studies in each stretch, or of those before a moment in it."""
    if not stretches:
        return []
    queries = [
        sa.select(sa.literal(n).label("n"), sa.func.count().label("number")).where(
            *_within(stretch), *([_earlier(before[n])] if before else [])
        )
        for n, stretch in enumerate(stretches)
    ]
    numbers = {row.n: row.number for row in session.execute(sa.union_all(*queries))}
    return [numbers[n] for n in range(len(stretches))]


def heads(
    session: Session, stretches: Sequence[Stretch], size: int
) -> list[list[tuple[int, dt.datetime]]]:
    """The first `size` studies of each stretch: id and arrival, first come first."""
    if not stretches:
        return []
    parts = []
    for n, stretch in enumerate(stretches):
        head = (
            sa.select(sa.literal(n).label("n"), Study.id, Study.first_instance_at)
            .where(*_within(stretch))
            .order_by(Study.first_instance_at, Study.id)
            .limit(size)
            .subquery()
        )
        parts.append(sa.select(head.c.n, head.c.id, head.c.first_instance_at))
    found: list[list[tuple[int, dt.datetime]]] = [[] for _ in stretches]
    for n, study_id, at in session.execute(sa.union_all(*parts)):
        found[n].append((study_id, at))
    return found


def _within(stretch: Stretch) -> list[sa.ColumnElement[bool]]:
    conditions = [
        Study.reading_state == stretch.reading_state,
        Study.priority == stretch.priority,
    ]
    if stretch.ordered is not None:
        conditions.append(Study.ordered_priority == stretch.ordered)
    if stretch.after is not None:
        conditions.append(Study.first_instance_at > stretch.after)
    if stretch.until is not None:
        conditions.append(Study.first_instance_at <= stretch.until)
    return conditions


def _earlier(before: Before) -> sa.ColumnElement[bool]:
    at, study_id = before
    same_moment = sa.and_(Study.first_instance_at == at, Study.id < study_id)
    return sa.or_(Study.first_instance_at < at, same_moment)

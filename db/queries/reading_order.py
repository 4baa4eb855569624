"""Ranges of the open worklist by index: counted, and read from their beginning.

SQLite and PostgreSQL read each range from `ix_study_place` (a level was committed) or
`ix_study_ordered_place` (the order decides), already in order of arrival.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.base import UtcDateTime

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
    return list(session.execute(_ORDERS, {"state": reading_state}).scalars())


_ORDERS = sa.text(
    "WITH RECURSIVE found (value) AS ("
    "SELECT MIN(ordered_priority) FROM study WHERE reading_state = :state AND priority = '' "
    "UNION ALL SELECT (SELECT MIN(ordered_priority) FROM study WHERE reading_state = :state "
    "AND priority = '' AND ordered_priority > found.value) FROM found WHERE value IS NOT NULL) "
    "SELECT value FROM found WHERE value IS NOT NULL"
)


def counts(
    session: Session, stretches: Sequence[Stretch], before: Sequence[Before] | None = None
) -> list[int]:
    """The number of studies in each stretch, or of those before a moment in it."""
    if not stretches:
        return []
    query = _counting(tuple(_shape(s) for s in stretches), before is not None)
    values = _values(stretches)
    for n, (at, study_id) in enumerate(before or ()):
        values |= {f"before{n}": at, f"id{n}": study_id}
    numbers = {row.n: row.number for row in session.execute(query, values)}
    return [numbers[n] for n in range(len(stretches))]


def heads(
    session: Session, stretches: Sequence[Stretch], size: int
) -> list[list[tuple[int, dt.datetime]]]:
    """The first `size` studies of each stretch: id and arrival, first come first."""
    if not stretches:
        return []
    query = _heading(tuple(_shape(s) for s in stretches))
    found: list[list[tuple[int, dt.datetime]]] = [[] for _ in stretches]
    for n, study_id, at in session.execute(query, {**_values(stretches), "size": size}):
        found[n].append((study_id, at))
    return found


#: Whether a stretch names an order, a beginning, an end.
Shape = tuple[bool, bool, bool]


def _shape(stretch: Stretch) -> Shape:
    return stretch.ordered is not None, stretch.after is not None, stretch.until is not None


# Written as text and kept by shape: to build and to key these unions as expressions took twice as
# long as to run them (28 of 45 ms of a first page).


@functools.lru_cache(maxsize=256)
def _counting(shapes: tuple[Shape, ...], before: bool) -> sa.TextClause | sa.TextualSelect:
    earlier = (
        " AND (first_instance_at < :before{n} OR (first_instance_at = :before{n} AND id < :id{n}))"
    )
    parts = (
        f"SELECT {n} AS n, COUNT(*) AS number FROM study WHERE {_where(n, shape)}"  # noqa: S608
        + (earlier.format(n=n) if before else "")
        for n, shape in enumerate(shapes)
    )
    return _typed(" UNION ALL ".join(parts), shapes, before=before)


@functools.lru_cache(maxsize=256)
def _heading(shapes: tuple[Shape, ...]) -> sa.TextClause | sa.TextualSelect:
    parts = (
        f"SELECT * FROM (SELECT {n} AS n, id, first_instance_at FROM study "  # noqa: S608
        f"WHERE {_where(n, shape)} ORDER BY first_instance_at, id LIMIT :size) AS part{n}"
        for n, shape in enumerate(shapes)
    )
    return _typed(" UNION ALL ".join(parts), shapes, before=False)


def _where(n: int, shape: Shape) -> str:
    ordered, after, until = shape
    return (
        f"reading_state = :state{n} AND priority = :priority{n}"
        + f" AND ordered_priority = :ordered{n}" * ordered
        + f" AND first_instance_at > :after{n}" * after
        + f" AND first_instance_at <= :until{n}" * until
    )


def _typed(sql: str, shapes: Sequence[Shape], *, before: bool) -> sa.TextClause | sa.TextualSelect:
    """The statement with the types of its moments; nothing but numbers of ours is in its text."""
    names = [f"after{n}" for n, shape in enumerate(shapes) if shape[1]]
    names += [f"until{n}" for n, shape in enumerate(shapes) if shape[2]]
    names += [f"before{n}" for n in range(len(shapes)) if before]
    typed = sa.text(sql).bindparams(*(sa.bindparam(name, type_=UtcDateTime()) for name in names))
    if "LIMIT" not in sql:
        return typed
    moment = sa.column("first_instance_at", UtcDateTime())
    return typed.columns(sa.column("n"), sa.column("id"), moment)


def _values(stretches: Sequence[Stretch]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for n, stretch in enumerate(stretches):
        values |= {f"state{n}": stretch.reading_state, f"priority{n}": stretch.priority}
        if stretch.ordered is not None:
            values[f"ordered{n}"] = stretch.ordered
        if stretch.after is not None:
            values[f"after{n}"] = stretch.after
        if stretch.until is not None:
            values[f"until{n}"] = stretch.until
    return values

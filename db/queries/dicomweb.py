"""What DICOMweb finds: studies, series and instances of the spool, with our own results among them.

Of an instance the newest version counts. A result that was sent back to us lies in the spool too,
and is found once. What was analyzed in shadow mode is not found: nobody is to read by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from db.models import Analysis, Instance, Result, Series, Study
from db.states import ReadingState

SPOOL, RESULTS = "spool", "results"
#: Result.kind -> Modality of the object.
MODALITIES = {"sr": "SR", "seg": "SEG", "pm": "OT", "sc": "OT"}
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"

Condition = sa.ColumnElement[bool]


@dataclass(frozen=True)
class Filters:
    """Conditions on each level, made by `agent.web.dicomweb.matching`."""

    study: tuple[Condition, ...] = ()
    modalities: tuple[str, ...] = ()
    """Any of these among the study's series; may hold wildcards in LIKE's form."""


@dataclass(frozen=True)
class SeriesFound:
    """A series: received, or made by us (then `number` and texts stand in its objects only)."""

    study: Study
    series_uid: str
    modality: str
    number: int | None
    description: str
    body_part: str


@dataclass(frozen=True)
class ObjectFound:
    """One instance and where its bytes lie."""

    study_id: int
    series_uid: str
    modality: str
    series_number: int | None
    sop_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    number: int | None
    place: str
    path: str
    size_bytes: int


@dataclass(frozen=True)
class Counts:
    """Of one study."""

    series: int = 0
    instances: int = 0


@dataclass(frozen=True)
class Levels:
    """How studies without a priority of their own are placed.

    Attributes:
        ordered: ordered priority, upper case -> rank.
        otherwise: rank of a study whose order says nothing.
    """

    ordered: Mapping[str, int]
    otherwise: int


def studies(
    session: Session,
    filters: Filters,
    *,
    limit: int,
    offset: int,
    levels: Levels | None = None,
) -> Sequence[Study]:
    """One page of studies: the last that came first, or unread ones by level and waiting time."""
    query = sa.select(Study).where(*_study_conditions(filters)).limit(limit).offset(offset)
    if levels is None:
        return session.scalars(query.order_by(Study.id.desc())).all()
    by_order = sa.case(
        dict(levels.ordered),
        value=sa.func.upper(Study.ordered_priority),
        else_=levels.otherwise,
    )
    rank = sa.case((Study.priority != "", Study.priority_rank), else_=by_order)
    is_read = sa.case((Study.reading_state == ReadingState.READ, 1), else_=0)
    order = (is_read, rank, Study.first_instance_at, Study.id)
    return session.scalars(query.order_by(*order)).all()


def studies_by_id(session: Session, study_ids: Sequence[int]) -> dict[int, Study]:
    """The studies with these ids."""
    rows = session.scalars(sa.select(Study).where(Study.id.in_(study_ids)))
    return {row.id: row for row in rows}


def read_studies(session: Session, *, limit: int, offset: int) -> Sequence[Study]:
    """One page of the studies that are read, the last that came first."""
    query = sa.select(Study).where(Study.reading_state == ReadingState.READ)
    return session.scalars(query.order_by(Study.id.desc()).limit(limit).offset(offset)).all()


def series(
    session: Session,
    filters: Filters,
    on_series: Mapping[str, Sequence[str]],
    *,
    limit: int,
    offset: int,
) -> list[SeriesFound]:
    """One page of series, received ones before results; `on_series` as of `_matching`."""
    found = _series_rows(filters).subquery()
    query = (
        sa.select(Study, *(found.c[name] for name in _SERIES_COLUMNS))
        .join(found, found.c.study_id == Study.id)
        .where(*_matching(found, on_series))
        .order_by(Study.id.desc(), found.c.made, found.c.number, found.c.series_uid)
        .limit(limit)
        .offset(offset)
    )
    return [SeriesFound(*row) for row in session.execute(query)]


def objects(
    session: Session,
    filters: Filters,
    on_object: Mapping[str, Sequence[str]],
    *,
    limit: int | None = None,
    offset: int = 0,
) -> list[ObjectFound]:
    """One page of instances; `on_object` as of `_matching`."""
    found = _object_rows(filters).subquery()
    query = (
        sa.select(*(found.c[name] for name in _OBJECT_COLUMNS))
        .where(*_matching(found, on_object))
        .order_by(
            found.c.study_id.desc(),
            found.c.made,
            found.c.series_number,
            found.c.series_uid,
            found.c.number,
            found.c.sop_uid,
        )
        .limit(limit)
        .offset(offset)
    )
    return [ObjectFound(*row) for row in session.execute(query)]


def counts(session: Session, study_ids: Sequence[int]) -> dict[int, Counts]:
    """How many series and instances each study has."""
    found = _object_rows(Filters((Study.id.in_(study_ids),))).subquery()
    query = sa.select(
        found.c.study_id, sa.func.count(sa.distinct(found.c.series_uid)), sa.func.count()
    ).group_by(found.c.study_id)
    return {row[0]: Counts(row[1], row[2]) for row in session.execute(query)}


def series_counts(
    session: Session, study_ids: Sequence[int], series_uids: Sequence[str]
) -> dict[tuple[int, str], int]:
    """(study, series) -> how many instances it has."""
    found = _object_rows(Filters((Study.id.in_(study_ids),))).subquery()
    query = (
        sa.select(found.c.study_id, found.c.series_uid, sa.func.count())
        .where(found.c.series_uid.in_(series_uids))
        .group_by(found.c.study_id, found.c.series_uid)
    )
    return {(row[0], row[1]): row[2] for row in session.execute(query)}


def modalities(session: Session, study_ids: Sequence[int]) -> dict[int, set[str]]:
    """Modalities of each study's series, results among them."""
    found = _series_rows(Filters((Study.id.in_(study_ids),))).subquery()
    kinds: dict[int, set[str]] = {}
    query = sa.select(found.c.study_id, found.c.modality).distinct()
    for study_id, modality in session.execute(query):
        kinds.setdefault(study_id, set()).add(modality)
    return kinds


def samples(
    session: Session, study_ids: Sequence[int], series_uids: Sequence[str] | None = None
) -> dict[tuple[int, str], tuple[str, str]]:
    """(study, series) -> place and path of one of its objects; series "" = of the whole study."""
    found = _object_rows(Filters((Study.id.in_(study_ids),))).subquery()
    by_series = series_uids is not None
    group = (found.c.study_id, found.c.series_uid) if by_series else (found.c.study_id,)
    # any will do, but of what was received before what was made: "spool" sorts behind "results"
    first = sa.func.max(found.c.place + ":" + found.c.path)
    query = sa.select(*group, first).group_by(*group)
    if series_uids is not None:
        query = query.where(found.c.series_uid.in_(series_uids))
    answer = {}
    for *key, sample in session.execute(query):
        place, _, path = sample.partition(":")
        answer[key[0], key[1] if by_series else ""] = (place, path)
    return answer


_SERIES_COLUMNS = ("series_uid", "modality", "number", "description", "body_part")
_OBJECT_COLUMNS = (
    "study_id",
    "series_uid",
    "modality",
    "series_number",
    "sop_uid",
    "sop_class_uid",
    "transfer_syntax_uid",
    "number",
    "place",
    "path",
    "size_bytes",
)


def _study_conditions(filters: Filters) -> list[Condition]:
    conditions = list(filters.study)
    if filters.modalities:
        conditions.append(_has_modality(filters.modalities))
    return conditions


def _has_modality(patterns: Sequence[str]) -> Condition:
    received = sa.exists().where(Series.study_id == Study.id, _any_like(Series.modality, patterns))
    made = sa.exists().where(
        Result.study_id == Study.id,
        Analysis.id == Result.analysis_id,
        Analysis.shadow.is_(False),
        _any_like(_modality_of_result(), patterns),
    )
    # First, because it needs no other table, and most studies match by what was received.
    listed = sa.func.replace("\\" + Study.modalities + "\\", "\\", "/")
    quick = _any_like(listed, [f"%/{pattern}/%" for pattern in patterns])
    return sa.or_(quick, received, made)


def _any_like(column: Any, patterns: Sequence[str]) -> Condition:
    return sa.or_(*(column.ilike(pattern, escape="\\") for pattern in patterns))


def _modality_of_result() -> Any:
    return sa.case(MODALITIES, value=Result.kind, else_="OT")


def _series_rows(filters: Filters) -> sa.CompoundSelect[Any]:
    """Series received and series made, of the studies that match."""
    conditions = _study_conditions(filters)
    received = (
        sa.select(
            Series.study_id.label("study_id"),
            Series.series_uid.label("series_uid"),
            Series.modality.label("modality"),
            Series.number.label("number"),
            Series.description.label("description"),
            Series.body_part.label("body_part"),
            sa.case((Series.own_result, 1), else_=0).label("made"),
        )
        .join(Study, Study.id == Series.study_id)
        .where(*conditions)
    )
    back = sa.exists().where(
        Series.study_id == Result.study_id, Series.series_uid == Result.series_uid
    )
    made = (
        sa.select(
            Result.study_id,
            Result.series_uid,
            sa.func.max(_modality_of_result()),
            sa.cast(sa.null(), sa.Integer),
            sa.literal(""),
            sa.literal(""),
            sa.literal(1),
        )
        .join(Study, Study.id == Result.study_id)
        .join(Analysis, Analysis.id == Result.analysis_id)
        .where(Analysis.shadow.is_(False), ~back, *conditions)
        .group_by(Result.study_id, Result.series_uid)
    )
    return sa.union_all(received, made)


def _object_rows(filters: Filters) -> sa.CompoundSelect[Any]:
    """Newest versions received and objects made, of the studies that match."""
    conditions = _study_conditions(filters)
    newer = aliased(Instance)
    replaced = sa.exists().where(
        newer.sop_uid == Instance.sop_uid,
        newer.study_id == Instance.study_id,
        newer.version > Instance.version,
    )
    received = (
        sa.select(
            Instance.study_id.label("study_id"),
            Series.series_uid.label("series_uid"),
            Series.modality.label("modality"),
            Series.number.label("series_number"),
            Instance.sop_uid.label("sop_uid"),
            Instance.sop_class_uid.label("sop_class_uid"),
            Instance.transfer_syntax_uid.label("transfer_syntax_uid"),
            Instance.number.label("number"),
            sa.literal(SPOOL).label("place"),
            Instance.path.label("path"),
            Instance.size_bytes.label("size_bytes"),
            sa.case((Series.own_result, 1), else_=0).label("made"),
        )
        .join(Series, Series.id == Instance.series_id)
        .join(Study, Study.id == Instance.study_id)
        .where(~replaced, *conditions)
    )
    back = sa.exists().where(
        Instance.sop_uid == Result.sop_uid, Instance.study_id == Result.study_id
    )
    made = (
        sa.select(
            Result.study_id,
            Result.series_uid,
            _modality_of_result(),
            sa.cast(sa.null(), sa.Integer),
            Result.sop_uid,
            Result.sop_class_uid,
            sa.literal(EXPLICIT_LITTLE),
            sa.cast(sa.null(), sa.Integer),
            sa.literal(RESULTS),
            Result.path,
            sa.cast(Result.size_bytes, sa.BigInteger),
            sa.literal(1),
        )
        .join(Study, Study.id == Result.study_id)
        .join(Analysis, Analysis.id == Result.analysis_id)
        .where(Analysis.shadow.is_(False), ~back, *conditions)
    )
    return sa.union_all(received, made)


def _matching(found: sa.Subquery, wanted: Mapping[str, Sequence[str]]) -> list[Condition]:
    """Conditions on columns of a union: ``name`` equal to any of, ``name~`` like any of."""
    conditions: list[Condition] = []
    for name, values in wanted.items():
        if name.endswith("~"):
            conditions.append(_any_like(found.c[name[:-1]], values))
        elif isinstance(found.c[name].type, sa.Integer):
            conditions.append(found.c[name].in_([int(value) for value in values]))
        else:
            conditions.append(found.c[name].in_(values))
    return conditions

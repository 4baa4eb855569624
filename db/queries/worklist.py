"""What the reading worklist and the study page show; every function only reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, defer

from db.models import Analysis, Delivery, Event, Instance, ReadingFeedback, Result, Series, Study
from db.states import DeliveryState, ReadingState

Row = TypeVar("Row")
#: Most urgent first, as in `agent.settings.Level`.
LEVELS = ("STAT", "HIGH", "MEDIUM", "LOW")


@dataclass(frozen=True)
class Conditions:
    """What a study must fulfil to be shown; empty = whatever.

    Attributes:
        text: part of the name of something found, or of the description, folded.
    """

    modality: str = ""
    state: str = ""
    text: str = ""
    dead_letters: bool = False


#: Name of a sort order -> what it sorts by; `order` is not among them, it needs the time of day.
SORTS: Mapping[str, tuple[Any, ...]] = {
    "newest": (Study.first_instance_at.desc(), Study.id.desc()),
    "oldest": (Study.first_instance_at, Study.id),
    "patient": (Study.patient_name, Study.first_instance_at, Study.id),
    "score": (Study.priority_score.desc(), Study.first_instance_at, Study.id),
}


def matching(
    session: Session, reading_states: Sequence[ReadingState], wanted: Conditions, sort: str
) -> list[int]:
    """Ids of the studies in these reading states that fulfil the conditions, sorted."""
    query = sa.select(Study.id).where(Study.reading_state.in_(reading_states))
    if wanted.modality:
        each = "\\" + Study.modalities + "\\"
        query = query.where(each.contains(f"\\{wanted.modality}\\", autoescape=True))
    if wanted.state:
        query = query.where(Study.state == wanted.state)
    if wanted.text:
        query = query.where(Study.found.contains(wanted.text, autoescape=True))
    if wanted.dead_letters:
        dead = sa.select(Delivery.study_id).where(Delivery.state == DeliveryState.DEAD)
        query = query.where(Study.id.in_(dead))
    return list(session.execute(query.order_by(*SORTS[sort])).scalars())


def shown_analyses(session: Session, study_ids: Sequence[int]) -> dict[int, Analysis]:
    """Study -> the analysis that stands for it on the worklist, its findings not loaded."""
    query = (
        sa.select(Analysis)
        .join(Study, Analysis.id == _shown_analysis())
        .where(Study.id.in_(study_ids))
        .options(defer(Analysis.findings), defer(Analysis.votes))
    )
    return {row.study_id: row for row in session.scalars(query)}


def findings_of(session: Session, analysis_ids: Sequence[str]) -> dict[str, str]:
    """Analysis id -> findings JSON."""
    if not analysis_ids:
        return {}
    query = sa.select(Analysis.id, Analysis.findings).where(Analysis.id.in_(analysis_ids))
    return {row.id: row.findings for row in session.execute(query)}


def series_numbers(session: Session, study_ids: Sequence[int]) -> dict[str, int]:
    """Series Instance UID -> Series Number, where the series has one."""
    query = sa.select(Series.series_uid, Series.number).where(
        Series.study_id.in_(study_ids), Series.number.is_not(None)
    )
    return {uid: number for uid, number in session.execute(query) if number is not None}


def same_patient(session: Session, studies: Sequence[Study]) -> dict[tuple[str, str], int]:
    """(patient id, issuer) -> number of studies we know of them, for the patients of these."""
    ids = {study.patient_id for study in studies if study.patient_id}
    if not ids:
        return {}
    query = (
        sa.select(Study.patient_id, Study.issuer_of_patient_id, sa.func.count())
        .where(Study.patient_id.in_(ids))
        .group_by(Study.patient_id, Study.issuer_of_patient_id)
    )
    return {(ident, issuer): number for ident, issuer, number in session.execute(query)}


def priors(session: Session, study: Study, limit: int = 20) -> Sequence[Study]:
    """Other studies of the same patient (ID and issuer), newest first; none without an ID."""
    if not study.patient_id:
        return ()
    query = (
        sa.select(Study)
        .where(
            Study.patient_id == study.patient_id,
            Study.issuer_of_patient_id == study.issuer_of_patient_id,
            Study.id != study.id,
        )
        .order_by(Study.study_date.desc(), Study.study_time.desc(), Study.id.desc())
        .limit(limit)
    )
    return session.scalars(query).all()


def studies(session: Session, ids: Sequence[int]) -> dict[int, Study]:
    """The studies with these ids."""
    rows = session.scalars(sa.select(Study).where(Study.id.in_(ids)))
    return {row.id: row for row in rows}


def latest_analyses(session: Session, study_id: int) -> Sequence[Analysis]:
    """The analyses of a study's highest analysed revision, the one that decides first."""
    query = sa.select(Analysis).where(Analysis.study_id == study_id)
    rows = session.scalars(query.order_by(*_decides_first(Analysis))).all()
    return [row for row in rows if row.revision == rows[0].revision]


def delivery_counts(
    session: Session, analysis_ids: Sequence[str]
) -> Mapping[int, Mapping[str, int]]:
    """Study id -> delivery state -> number of deliveries of the revisions of these analyses."""
    shown = aliased(Analysis)
    revisions = (
        sa.select(Analysis.id)
        .join(
            shown,
            sa.and_(shown.study_id == Analysis.study_id, shown.revision == Analysis.revision),
        )
        .where(shown.id.in_(analysis_ids))
    )
    query = (
        sa.select(Delivery.study_id, Delivery.state, sa.func.count())
        .where(Delivery.analysis_id.in_(revisions))
        .group_by(Delivery.study_id, Delivery.state)
    )
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    for study_id, state, number in session.execute(query):
        counts[study_id][state] = number
    return counts


@dataclass(frozen=True)
class DeadLetters:
    """Deliveries that were given up: how many, whose, where to."""

    number: int = 0
    destinations: tuple[str, ...] = ()
    study_ids: frozenset[int] = frozenset()


def dead_letters(session: Session) -> DeadLetters:
    """Every delivery in state `dead`."""
    query = sa.select(Delivery.destination, Delivery.study_id).where(
        Delivery.state == DeliveryState.DEAD
    )
    rows = session.execute(query.order_by(Delivery.id)).all()
    return DeadLetters(
        number=len(rows),
        destinations=tuple(dict.fromkeys(row.destination for row in rows)),
        study_ids=frozenset(row.study_id for row in rows),
    )


def change_stamp(session: Session) -> tuple[int, ...]:
    """Differs after every event, word of a reader, new study and new delivery."""
    tables = (Event, ReadingFeedback, Study, Delivery)
    newest = [sa.select(sa.func.max(table.id)).scalar_subquery() for table in tables]
    return tuple(number or 0 for number in session.execute(sa.select(*newest)).one())


def studies_by_state(session: Session) -> dict[str, int]:
    """Number of studies in each state that occurs."""
    query = sa.select(Study.state, sa.func.count()).group_by(Study.state)
    return {row[0]: row[1] for row in session.execute(query)}


def deliveries_by_destination(session: Session) -> dict[tuple[str, str], int]:
    """(destination, state) -> number of deliveries."""
    query = sa.select(Delivery.destination, Delivery.state, sa.func.count()).group_by(
        Delivery.destination, Delivery.state
    )
    return {(name, state): number for name, state, number in session.execute(query)}


def find_study(session: Session, reference: str) -> Study | None:
    """A study by its key, or by its database id."""
    study = session.scalars(sa.select(Study).where(Study.key == reference)).first()
    if study is None and reference.isdecimal() and len(reference) <= 9:
        study = session.get(Study, int(reference))
    return study


def find_report(session: Session, study_id: int, sop_uid: str) -> Result | None:
    """A structured report that was made of a study."""
    query = sa.select(Result).where(
        Result.study_id == study_id, Result.sop_uid == sop_uid, Result.kind == "sr"
    )
    return session.scalars(query).first()


@dataclass(frozen=True)
class SeriesRow:
    """A series and how many instances of it are there."""

    series: Series
    instances: int


def series_of(session: Session, study_id: int) -> list[SeriesRow]:
    """The received series, in the order of their numbers."""
    count = sa.func.count(sa.distinct(Instance.sop_uid))
    query = (
        sa.select(Series, count)
        .outerjoin(Instance, Instance.series_id == Series.id)
        .where(Series.study_id == study_id)
        .group_by(Series.id)
        .order_by(Series.number, Series.id)
    )
    return [SeriesRow(series, number) for series, number in session.execute(query)]


def newest_instances(session: Session, study_id: int, series_uid: str) -> list[Instance]:
    """The instances of one series, of each SOP Instance UID the last version received."""
    query = (
        sa.select(Instance)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study_id, Series.series_uid == series_uid)
        .order_by(Instance.version)
    )
    return list({row.sop_uid: row for row in session.scalars(query)}.values())


def series_modality(session: Session, study_id: int, series_uid: str) -> str:
    """Modality of a received series; empty when there is none."""
    query = sa.select(Series.modality).where(
        Series.study_id == study_id, Series.series_uid == series_uid
    )
    return session.scalars(query).first() or ""


@dataclass(frozen=True)
class Record:
    """Everything that happened to one study, oldest first."""

    events: tuple[Event, ...]
    analyses: tuple[Analysis, ...]
    results: tuple[Result, ...]
    deliveries: tuple[Delivery, ...]
    feedback: tuple[ReadingFeedback, ...]


def record_of(session: Session, study_id: int) -> Record:
    """The rows that belong to one study."""

    def of(query: sa.Select[Row], owner: sa.ColumnElement[bool]) -> tuple[Row, ...]:
        return tuple(session.scalars(query.where(owner)))

    return Record(
        events=of(sa.select(Event).order_by(Event.at, Event.id), Event.study_id == study_id),
        analyses=of(
            sa.select(Analysis).order_by(Analysis.revision, Analysis.created_at, Analysis.id),
            Analysis.study_id == study_id,
        ),
        results=of(sa.select(Result).order_by(Result.id), Result.study_id == study_id),
        deliveries=of(sa.select(Delivery).order_by(Delivery.id), Delivery.study_id == study_id),
        feedback=of(
            sa.select(ReadingFeedback).order_by(ReadingFeedback.id),
            ReadingFeedback.study_id == study_id,
        ),
    )


def _shown_analysis() -> sa.ScalarSelect[str]:
    """Id of the analysis that stands for a study on the worklist."""
    row = aliased(Analysis)
    return (
        sa.select(row.id)
        .where(row.study_id == Study.id)
        .order_by(*_decides_first(row))
        .limit(1)
        .correlate(Study)
        .scalar_subquery()
    )


def _decides_first(row: type[Analysis]) -> tuple[Any, ...]:
    """Newest revision, what counts before what is in shadow mode, then the most urgent pack."""
    urgency = sa.case({level: n for n, level in enumerate(LEVELS)}, value=row.priority, else_=9)
    return (row.revision.desc(), row.shadow, urgency, row.priority_score.desc(), row.created_at)

"""The reading worklist: every open study at its place, filtered and paged.

One order for everybody: the page, the REST API and the worklist SCP ask here.

Which level a study stands at: the level committed with its analysis, or set by a reader. Without
one (not analysed yet, in shadow mode), the order decides; an order that says nothing counts as
`priority.unread_failure`, for the absence of a flag is not a negative.
A study waits from its first image on: late images never cost it its place.

The list as it stands is read by index ranges (`agent.reading_order`), however long it is; a filter
or another sort order reads the ids of the whole list.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from agent.reading_order import OPEN, ReadingOrder, Standing, Tally, level_of
from agent.settings import Level, PrioritySettings
from agent.worklist_entries import (
    WorklistEntry,
    analysis_of,
    deliveries_of,
    patient_of,
    study_of,
    summary_of,
)
from db.models import Analysis, Study
from db.queries import worklist as queries
from db.queries.worklist import Conditions
from db.states import ReadingState, StudyState


class Sort(enum.StrEnum):
    """In which order the studies are shown; their ranks are those of the reading order in all."""

    #: the reading order; studies that are read come last
    ORDER = "order"
    #: latest arrival first
    NEWEST = "newest"
    #: longest wait first, whatever the level
    OLDEST = "oldest"
    #: by name
    PATIENT = "patient"
    #: most probable finding first
    SCORE = "score"


@dataclass(frozen=True)
class WorklistFilters:
    """What to show; None or empty = no restriction. Ranks are not affected by filters.

    Attributes:
        modality: a modality the study contains, e.g. ``CT``.
        state: a state of the flow.
        level: the level given, or the level the study has climbed to.
        reading_states: as given; the default hides studies that are read.
        text: part of the name of a finding above threshold, without regard to case.
        dead_letters: only studies with a result that could not be delivered.
    """

    modality: str | None = None
    state: StudyState | None = None
    level: Level | None = None
    reading_states: tuple[ReadingState, ...] = OPEN
    text: str = ""
    dead_letters: bool = False


@dataclass(frozen=True)
class PageRequest:
    """Which part of the list: page numbers begin with 1."""

    number: int = 1
    size: int = 50


@dataclass(frozen=True)
class WorklistPage:
    """A part of the ordered list, and numbers about the whole of it.

    Attributes:
        total: studies that match the filters.
        open_total: studies that are not read yet, whatever the filters.
        open_by_level: of those, how many stand at each level now.
    """

    entries: tuple[WorklistEntry, ...]
    number: int
    size: int
    total: int
    open_total: int
    open_by_level: dict[Level, int]
    dead_letters: queries.DeadLetters
    as_of: dt.datetime

    @property
    def pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-self.total // self.size))


@dataclass(frozen=True)
class _Shown:
    """A study to be shown; `standing` is None when it is read already."""

    study_id: int
    standing: Standing | None


def entries(
    session: Session,
    priority: PrioritySettings,
    now: dt.datetime,
    filters: WorklistFilters | None = None,
    page: PageRequest | None = None,
    sort: Sort = Sort.ORDER,
    tally: Tally | None = None,
) -> WorklistPage:
    """The worklist as it stands at `now`; a page beyond the last shows the last.

    `tally` spares counting a long list that did not change since it was asked for last.
    """
    filters, page = filters or WorklistFilters(), page or PageRequest()
    order = ReadingOrder(session, priority, now, tally)
    # Nothing is given STAT and stands elsewhere: those are the first part of the list.
    lengths = {None: order.total, Level.STAT: order.by_level[Level.STAT]}
    is_beginning = sort is Sort.ORDER and filters in _BEGINNINGS
    shown = [] if is_beginning else _shown(session, order, filters, sort)
    total = lengths[filters.level] if is_beginning else len(shown)
    number = min(max(1, page.number), max(1, -(-total // page.size)))
    start = (number - 1) * page.size
    if is_beginning:
        part = order.part(start, min(page.size, total - start))
        shown = [_Shown(s.study_id, s) for s in part]
    else:
        shown = shown[start : start + page.size]
    return WorklistPage(
        entries=_detailed(session, shown, priority, now),
        number=number,
        size=page.size,
        total=total,
        open_total=order.total,
        open_by_level=order.by_level,
        dead_letters=queries.dead_letters(session),
        as_of=now,
    )


_BEGINNINGS = (WorklistFilters(), WorklistFilters(level=Level.STAT))


def open_entries(
    session: Session, priority: PrioritySettings, now: dt.datetime, chunk: int = 200
) -> Iterator[WorklistEntry]:
    """Every open study in reading order; the order is read once, the rest a chunk at a time."""
    order = ReadingOrder(session, priority, now)
    standings = order.part(0, order.total)
    for start in range(0, len(standings), chunk):
        shown = [_Shown(s.study_id, s) for s in standings[start : start + chunk]]
        yield from _detailed(session, shown, priority, now)
        session.expunge_all()  # a hundred thousand rows need not be kept to the end


def entry(
    session: Session, priority: PrioritySettings, now: dt.datetime, study_id: int
) -> WorklistEntry | None:
    """One study at its place; None when there is no such study."""
    study = session.get(Study, study_id)
    if study is None:
        return None
    standing = None
    if study.reading_state in OPEN:
        standing = ReadingOrder(session, priority, now).standing_of(study)
    return next(iter(_detailed(session, [_Shown(study_id, standing)], priority, now)), None)


def standing_level(
    *, given: str, ordered: str, shadow: bool, priority: PrioritySettings
) -> tuple[Level, bool]:
    """The level a study is placed by, and whether it is the model's (or a reader's)."""
    return level_of(given, ordered, priority), bool(given) and not shadow


def _shown(
    session: Session, order: ReadingOrder, filters: WorklistFilters, sort: Sort
) -> list[_Shown]:
    """What the filters leave, in the order asked for."""
    standings = {s.study_id: s for s in order.part(0, order.total)}
    wanted = Conditions(
        modality=filters.modality or "",
        state=filters.state or "",
        text=filters.text.casefold(),
        dead_letters=filters.dead_letters,
    )
    by = Sort.NEWEST if sort is Sort.ORDER else sort
    ids = queries.matching(session, filters.reading_states, wanted, by)
    if sort is Sort.ORDER:
        matching = set(ids)
        ids = [i for i in standings if i in matching] + [i for i in ids if i not in standings]
    shown = [_Shown(ident, standings.get(ident)) for ident in ids]
    return [s for s in shown if _stands_at(session, s, filters.level)] if filters.level else shown


def _stands_at(session: Session, shown: _Shown, level: Level) -> bool:
    if shown.standing is not None:
        return level in (shown.standing.level, shown.standing.effective_level)
    study = session.get(Study, shown.study_id)
    return study is not None and study.priority == level


def _detailed(
    session: Session, shown: Sequence[_Shown], priority: PrioritySettings, now: dt.datetime
) -> tuple[WorklistEntry, ...]:
    rows = _rows(session, [s.study_id for s in shown])
    return tuple(
        _entry(s, rows, priority, now)
        for s in shown
        if s.study_id in rows.studies  # retention may have removed it meanwhile
    )


@dataclass(frozen=True)
class _Rows:
    studies: Mapping[int, Study]
    analyses: Mapping[int, Analysis]
    summaries: Mapping[str, str]
    series_numbers: Mapping[str, int]
    deliveries: Mapping[int, Mapping[str, int]]
    same_patient: Mapping[tuple[str, str], int]


def _rows(session: Session, ids: Sequence[int]) -> _Rows:
    studies = queries.studies(session, ids)
    analyses = queries.shown_analyses(session, ids)
    shown = list(analyses.values())
    # analysed by a version that wrote no summary
    without = queries.findings_of(session, [a.id for a in shown if not a.summary])
    return _Rows(
        studies=studies,
        analyses=analyses,
        summaries={a.id: a.summary or summary_of(without[a.id]) for a in shown},
        series_numbers=queries.series_numbers(session, ids),
        deliveries=queries.delivery_counts(session, [a.id for a in shown]),
        same_patient=queries.same_patient(session, list(studies.values())),
    )


def _entry(s: _Shown, rows: _Rows, priority: PrioritySettings, now: dt.datetime) -> WorklistEntry:
    study = rows.studies[s.study_id]
    analysis = rows.analyses.get(study.id)
    level, prioritized = standing_level(
        given=study.priority,
        ordered=study.ordered_priority,
        shadow=analysis is not None and analysis.shadow,
        priority=priority,
    )
    waiting = max(0.0, (now - study.first_instance_at).total_seconds() / 60)
    target = priority.target_minutes[level]
    known = rows.same_patient.get((study.patient_id, study.issuer_of_patient_id), 1)
    return WorklistEntry(
        rank=s.standing.rank if s.standing else None,
        level=level,
        effective_level=s.standing.effective_level if s.standing else level,
        overdue=s.standing is not None and waiting > target,
        prioritized=prioritized,
        patient=patient_of(study),
        study=study_of(study),
        state=study.state,
        state_reason=study.reason,
        reading_state=study.reading_state,
        waiting_since=study.first_instance_at,
        waiting_minutes=waiting,
        target_minutes=target,
        analysis=analysis_of(analysis, study, rows.summaries[analysis.id], rows.series_numbers)
        if analysis
        else None,
        deliveries=deliveries_of(rows.deliveries.get(study.id, {})),
        set_by_reader=bool(study.human_level) and study.priority == study.human_level,
        priors=known - 1,
        priority_reason=study.priority_reason,
    )


__all__ = [
    "OPEN",
    "PageRequest",
    "Sort",
    "Tally",
    "WorklistEntry",
    "WorklistFilters",
    "WorklistPage",
    "entries",
    "entry",
    "open_entries",
    "standing_level",
]

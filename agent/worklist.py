"""The reading worklist: every open study at its place, filtered and paged.

One order for everybody: the page, the REST API and the worklist SCP ask here.

Which level a study stands at: the level committed with its analysis. Without one (not analysed yet,
skipped), and in shadow mode, the order decides; an order that says nothing counts as
`priority.unread_failure`, for the absence of a flag is not a negative.
A study waits from its first image on: late images never cost it its place.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from agent import ordering
from agent.settings import Level, PrioritySettings
from agent.worklist_entries import (
    WorklistEntry,
    analysis_of,
    deliveries_of,
    finding_lines,
    patient_of,
    study_of,
)
from db.models import Analysis, Study
from db.queries import worklist as queries
from db.queries.worklist import Candidate
from db.states import ReadingState, StudyState

OPEN = (ReadingState.UNREAD, ReadingState.READING)


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
class _Placed:
    candidate: Candidate
    level: Level
    effective_level: Level
    prioritized: bool
    rank: int | None


def entries(
    session: Session,
    priority: PrioritySettings,
    now: dt.datetime,
    filters: WorklistFilters | None = None,
    page: PageRequest | None = None,
) -> WorklistPage:
    """The worklist as it stands at `now`; a page beyond the last shows the last."""
    filters, page = filters or WorklistFilters(), page or PageRequest()
    placed = _in_reading_order(queries.candidates(session, tuple(OPEN)), priority, now)
    levels = [p.effective_level for p in placed]
    dead = queries.dead_letters(session)
    shown = _matching(session, _shown(session, placed, filters, priority), filters, dead)
    last = max(1, -(-len(shown) // page.size))
    number = min(max(1, page.number), last)
    part = shown[(number - 1) * page.size : number * page.size]
    return WorklistPage(
        entries=_detailed(session, part, priority, now),
        number=number,
        size=page.size,
        total=len(shown),
        open_total=len(placed),
        open_by_level={level: levels.count(level) for level in Level},
        dead_letters=dead,
        as_of=now,
    )


def entry(
    session: Session, priority: PrioritySettings, now: dt.datetime, study_id: int
) -> WorklistEntry | None:
    """One study at its place; None when there is no such study."""
    candidates = queries.candidates(session, tuple(ReadingState))
    open_ = [c for c in candidates if c.reading_state in OPEN]
    read = [c for c in candidates if c.reading_state not in OPEN]
    everybody = _in_reading_order(open_, priority, now) + _read(read, priority)
    wanted = [p for p in everybody if p.candidate.study_id == study_id]
    return next(iter(_detailed(session, wanted, priority, now)), None)


def standing_level(
    *, given: str, ordered: str, shadow: bool, priority: PrioritySettings
) -> tuple[Level, bool]:
    """The level a study is placed by, and whether it is the model's."""
    if given and not shadow:
        return Level(given), True
    return priority.ordered.get(ordered.upper(), priority.unread_failure), False


def _in_reading_order(
    candidates: Sequence[Candidate], priority: PrioritySettings, now: dt.datetime
) -> list[_Placed]:
    rows = []
    for c in candidates:
        level, prioritized = _level(c, priority)
        place = ordering.place(level, c.waiting_since, now, priority.target_minutes)
        rows.append((place, c.waiting_since, c.study_id, c, level, prioritized))
    rows.sort(key=lambda row: row[:3])
    return [
        _Placed(c, level, place.level, prioritized, rank)
        for rank, (place, _, _, c, level, prioritized) in enumerate(rows, start=1)
    ]


def _read(candidates: Sequence[Candidate], priority: PrioritySettings) -> list[_Placed]:
    """Studies that are read already: no rank, the latest first."""
    latest = sorted(candidates, key=lambda c: (c.waiting_since, c.study_id), reverse=True)
    levels = [_level(c, priority) for c in latest]
    return [
        _Placed(c, level, level, prioritized, None)
        for c, (level, prioritized) in zip(latest, levels, strict=True)
    ]


def _level(c: Candidate, priority: PrioritySettings) -> tuple[Level, bool]:
    return standing_level(
        given=c.priority, ordered=c.ordered_priority, shadow=c.shadow, priority=priority
    )


def _shown(
    session: Session,
    placed: list[_Placed],
    filters: WorklistFilters,
    priority: PrioritySettings,
) -> list[_Placed]:
    shown = [p for p in placed if p.candidate.reading_state in filters.reading_states]
    if ReadingState.READ in filters.reading_states:
        shown += _read(queries.candidates(session, (ReadingState.READ,)), priority)
    return shown


def _matching(
    session: Session, placed: list[_Placed], filters: WorklistFilters, dead: queries.DeadLetters
) -> list[_Placed]:
    if filters.modality:
        placed = [p for p in placed if filters.modality in p.candidate.modalities.split("\\")]
    if filters.state:
        placed = [p for p in placed if p.candidate.state == filters.state]
    if filters.level:
        placed = [p for p in placed if filters.level in (p.level, p.effective_level)]
    if filters.text:
        ids = [p.candidate.analysis_id for p in placed if p.candidate.analysis_id]
        found = _analyses_finding(session, filters.text, ids)
        placed = [p for p in placed if p.candidate.analysis_id in found]
    if filters.dead_letters:
        placed = [p for p in placed if p.candidate.study_id in dead.study_ids]
    return placed


def _analyses_finding(session: Session, text: str, ids: Sequence[str]) -> set[str]:
    """Those of the analyses with a finding above threshold whose name contains `text`.

    The database narrows it down by the JSON text (in which every label occurs, present or not, and
    non-ASCII is escaped, hence no narrowing then); the JSON itself decides.
    """
    wanted = text.casefold()
    rows = queries.findings_mentioning(session, text if text.isascii() else "", ids)
    return {
        ident
        for ident, said in rows.items()
        if any(
            line.present and wanted in f"{line.display}\n{line.label}".casefold()
            for line in finding_lines(json.loads(said))
        )
    }


def _detailed(
    session: Session, placed: Sequence[_Placed], priority: PrioritySettings, now: dt.datetime
) -> tuple[WorklistEntry, ...]:
    analysis_ids = [p.candidate.analysis_id for p in placed if p.candidate.analysis_id]
    rows = _Rows(
        studies=queries.studies(session, [p.candidate.study_id for p in placed]),
        analyses=queries.analyses(session, analysis_ids),
        deliveries=queries.delivery_counts(session, analysis_ids),
    )
    return tuple(
        _entry(p, rows, priority, now)
        for p in placed
        if p.candidate.study_id in rows.studies  # retention may have removed it meanwhile
    )


@dataclass(frozen=True)
class _Rows:
    studies: Mapping[int, Study]
    analyses: Mapping[int, Analysis]
    deliveries: Mapping[int, Mapping[str, int]]


def _entry(p: _Placed, rows: _Rows, priority: PrioritySettings, now: dt.datetime) -> WorklistEntry:
    study = rows.studies[p.candidate.study_id]
    analysis = rows.analyses.get(study.id)
    waiting = max(0.0, (now - p.candidate.waiting_since).total_seconds() / 60)
    target = priority.target_minutes[p.level]
    return WorklistEntry(
        rank=p.rank,
        level=p.level,
        effective_level=p.effective_level,
        overdue=p.rank is not None and waiting > target,
        prioritized=p.prioritized,
        patient=patient_of(study),
        study=study_of(study),
        state=study.state,
        state_reason=study.reason,
        reading_state=study.reading_state,
        waiting_since=p.candidate.waiting_since,
        waiting_minutes=waiting,
        target_minutes=target,
        analysis=analysis_of(analysis, study) if analysis else None,
        deliveries=deliveries_of(rows.deliveries.get(study.id, {})),
    )


__all__ = [
    "OPEN",
    "PageRequest",
    "WorklistEntry",
    "WorklistFilters",
    "WorklistPage",
    "entries",
    "entry",
    "standing_level",
]

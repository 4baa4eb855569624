"""The reading order from the database: any part of it, its size, and the place of one study.

`agent.ordering` says where a study stands; seen the other way round, the whole list is a handful of
index ranges (a level, a number of climbs) that are each in order of arrival. So the first page of a
hundred thousand studies reads a page of each range, not a hundred thousand rows.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from agent import ordering
from agent.ordering import Span
from agent.settings import Level, PrioritySettings
from db.models import Study
from db.queries import reading_order as rows
from db.queries.reading_order import Stretch
from db.queries.worklist import change_stamp
from db.states import ReadingState

OPEN = (ReadingState.UNREAD, ReadingState.READING)


@dataclass(frozen=True)
class Standing:
    """One open study at its place.

    Attributes:
        rank: 1 is read first.
        level: as given by the model, a reader or the order.
        effective_level: where it stands now, after climbing.
        since: when its first image came.
    """

    study_id: int
    rank: int
    level: Level
    effective_level: Level
    since: dt.datetime


@dataclass(frozen=True)
class _Range:
    """A span, and the part of the index where (some of) its studies lie."""

    span: Span
    stretch: Stretch
    number: int = 0


class Tally:
    """Remembers how a long list was counted, for all pages that show it.

    To count a hundred thousand index entries takes longer than all else about a page. So the count
    stands until the record says that something changed (`change_stamp`), and for a few seconds at
    most, since studies climb as time goes by. Short lists are counted every time.
    """

    def __init__(self, keep_s: float = 5.0, long_list: int = 5000) -> None:
        self._keep_s = keep_s
        self._long_list = long_list
        self._last: tuple[tuple[int, ...], float, list[_Range]] | None = None

    def ranges(
        self, session: Session, priority: PrioritySettings, now: dt.datetime
    ) -> list[_Range]:
        """The ranges that hold studies, with their numbers."""
        stamp = change_stamp(session)
        last = self._last  # one look: another thread may put another one there
        if last is not None and last[0] == stamp and time.monotonic() < last[1] + self._keep_s:
            return last[2]
        counted = _counted(session, priority, now)
        if sum(r.number for r in counted) > self._long_list:
            self._last = (stamp, time.monotonic(), counted)
        return counted


class ReadingOrder:
    """The open list at one moment; counted once, read in parts."""

    def __init__(
        self,
        session: Session,
        priority: PrioritySettings,
        now: dt.datetime,
        tally: Tally | None = None,
    ) -> None:
        self._session = session
        self._priority = priority
        self._now = now
        count = tally.ranges if tally is not None else _counted
        self._ranges = count(session, priority, now)
        numbers = [0] * len(Level)
        for r in self._ranges:
            numbers[r.span.rank] += r.number
        self.by_level: dict[Level, int] = dict(zip(Level, numbers, strict=True))
        """How many stand at each level now."""

    @property
    def total(self) -> int:
        """How many studies are open."""
        return sum(self.by_level.values())

    def part(self, start: int, size: int) -> list[Standing]:
        """The studies with ranks `start` + 1 and up, at most `size`."""
        standings: list[Standing] = []
        before = 0
        for level, number in self.by_level.items():
            skip = max(0, start - before)
            wanted = min(number - skip, size - len(standings))
            if wanted > 0:
                standings += self._of_level(level, before, skip, wanted)
            before += number
        return standings

    def standing_of(self, study: Study) -> Standing:
        """The place of an open study."""
        level = level_of(study.priority, study.ordered_priority, self._priority)
        since = study.first_instance_at
        place = ordering.place(level, since, self._now, self._priority.target_minutes)
        ahead = sum(r.number for r in self._ranges if r.span.rank < place.rank)
        beside = [r for r in self._ranges if r.span.rank == place.rank]
        # Entered the level earlier, or at the same moment with a smaller id.
        earlier = rows.counts(
            self._session,
            [r.stretch for r in beside],
            [(place.since - r.span.shift, study.id) for r in beside],
        )
        return Standing(study.id, 1 + ahead + sum(earlier), level, place.level, since)

    def _of_level(self, level: Level, before: int, skip: int, size: int) -> list[Standing]:
        rank = level.rank
        ranges = [r for r in self._ranges if r.span.rank == rank]
        heads = rows.heads(self._session, [r.stretch for r in ranges], skip + size)
        entered = sorted(
            (since + r.span.shift, study_id, since, r.span.level)
            for r, head in zip(ranges, heads, strict=True)
            for study_id, since in head
        )
        return [
            Standing(study_id, before + n, given, level, since)
            for n, (_, study_id, since, given) in enumerate(
                entered[skip : skip + size], start=skip + 1
            )
        ]


def level_of(given: str, ordered: str, priority: PrioritySettings) -> Level:
    """The level a study is placed by: what was committed, else what the order says.

    Without either it is `unread_failure`, for the absence of a flag is not a negative.
    """
    if given:
        return Level(given)
    return priority.ordered.get(ordered.upper(), priority.unread_failure)


def _counted(session: Session, priority: PrioritySettings, now: dt.datetime) -> list[_Range]:
    ranges = list(_ranges(session, priority, now))
    numbers = rows.counts(session, [r.stretch for r in ranges])
    return [replace(r, number=n) for r, n in zip(ranges, numbers, strict=True) if n]


def _ranges(session: Session, priority: PrioritySettings, now: dt.datetime) -> Iterator[_Range]:
    """Every range that may hold an open study; each study lies in exactly one."""
    spans = ordering.spans(now, priority.target_minutes)
    for state in OPEN:
        for span in spans:
            yield _Range(span, Stretch(state, span.level.value, None, span.after, span.until))
        for ordered in rows.orders_without_level(session, state):
            level = level_of("", ordered, priority)
            for span in spans:
                if span.level is level:
                    yield _Range(span, Stretch(state, "", ordered, span.after, span.until))


__all__: Sequence[str] = ("OPEN", "ReadingOrder", "Standing", "Tally", "level_of")

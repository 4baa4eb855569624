"""The reading order: level first, then waiting time, and nobody waits for ever. Pure.

A study climbs one level each time it has waited another full target of its own level. Inside a
level the one that has been there longest comes first. So once a study has climbed to the top, only
studies that were at the top before it are read before it: however many STAT studies arrive, the
wait of a LOW study is bounded by ``3 * target(LOW)`` plus the backlog at that moment.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from agent.settings import Level


@dataclass(frozen=True, order=True)
class Place:
    """Where a study stands; smaller is read first.

    Attributes:
        rank: rank of the effective level, 0 = STAT.
        since: when the study entered that level.
    """

    rank: int
    since: dt.datetime

    @property
    def level(self) -> Level:
        """The level the study is read at now."""
        return list(Level)[self.rank]


def place(
    level: Level,
    waiting_since: dt.datetime,
    now: dt.datetime,
    target_minutes: Mapping[Level, float],
) -> Place:
    """Place of a study of `level` that has waited from `waiting_since` until `now`."""
    target = dt.timedelta(minutes=target_minutes[level])
    targets_elapsed = max(0, (now - waiting_since) // target)
    climbed = min(targets_elapsed, level.rank)
    return Place(rank=level.rank - climbed, since=waiting_since + climbed * target)


@dataclass(frozen=True)
class Span:
    """Studies of one level that have climbed equally often: inside it, first come is first read.

    Attributes:
        level: the level they were given.
        climbed: how many levels they have risen.
        after: they came later than this; None = however long ago.
        until: they came at this moment or before; None = however late.
        shift: from arrival to the moment they entered the level they stand at.
        rank: of the level they stand at, 0 = STAT.
    """

    level: Level
    climbed: int
    after: dt.datetime | None
    until: dt.datetime | None
    shift: dt.timedelta
    rank: int


def spans(now: dt.datetime, target_minutes: Mapping[Level, float]) -> list[Span]:
    """The whole list at `now` as ranges of arrival time: what `place` says, turned inside out."""
    made = []
    for level in Level:
        target = dt.timedelta(minutes=target_minutes[level])
        for climbed in range(level.rank + 1):
            after = now - (climbed + 1) * target if climbed < level.rank else None
            until = now - climbed * target if climbed else None
            rank = level.rank - climbed
            made.append(Span(level, climbed, after, until, climbed * target, rank))
    return made

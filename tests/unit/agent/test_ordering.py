"""The reading order: by level when nobody has waited, and nobody waits for ever."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from agent import ordering
from agent.settings import Level

START = dt.datetime(2026, 11, 23, 8, 0, tzinfo=dt.UTC)
TARGETS = {Level.STAT: 2.0, Level.HIGH: 4.0, Level.MEDIUM: 8.0, Level.LOW: 12.0}
LEVELS = st.sampled_from(list(Level))
#: How many studies of which levels arrive in each minute; one is read a minute, so this may be an
#: influx that the reader never gets on top of.
INFLUX = st.lists(st.lists(LEVELS, max_size=4), max_size=40)


def _at(minutes: float) -> dt.datetime:
    return START + dt.timedelta(minutes=minutes)


def _place(level: Level, since: float, now: float) -> ordering.Place:
    return ordering.place(level, _at(since), _at(now), TARGETS)


@dataclass(frozen=True)
class Waiting:
    """A study that is not read yet."""

    number: int
    level: Level
    arrived: int


def _ahead_of(study: Waiting, others: list[Waiting], now: int) -> int:
    mine = (_place(study.level, study.arrived, now), study.number)
    return sum((_place(o.level, o.arrived, now), o.number) < mine for o in others)


def _read_at(
    studies: dict[int, list[Level]], watched: Waiting, *, climbing: bool = True, until: int = 300
) -> tuple[int | None, int]:
    """Read one study a minute. Returns when the watched one was read, and the backlog it met.

    The backlog is the number of studies ahead of it when it had climbed to the top level.
    """
    waiting, backlog, number = [watched], 0, watched.number
    top = watched.arrived + watched.level.rank * int(TARGETS[watched.level])
    for now in range(until):
        for level in studies.get(now, []):
            number += 1
            waiting.append(Waiting(number, level, now))
        if now == top:
            backlog = _ahead_of(watched, waiting, now)

        def key(s: Waiting, now: int = now) -> tuple[ordering.Place, int]:
            if climbing:
                return _place(s.level, s.arrived, now), s.number
            return ordering.Place(s.level.rank, _at(s.arrived)), s.number

        first = min(waiting, key=key)
        if first is watched:
            return now, backlog
        waiting.remove(first)
    return None, backlog


@given(influx=INFLUX)
@settings(max_examples=40, deadline=None)
def test_the_wait_of_a_low_study_is_bounded_under_any_influx(influx: list[list[Level]]):
    """At most three times its target, then as many reads as stood before it at that moment."""
    endless = {now: [Level.STAT, Level.STAT] for now in range(300)}
    arrivals = {now: levels + endless[now] for now, levels in enumerate(influx)}
    low = Waiting(0, Level.LOW, 0)

    read, backlog = _read_at({**endless, **arrivals}, low)

    assert read is not None
    assert read <= 3 * TARGETS[Level.LOW] + backlog


def test_without_climbing_the_same_influx_starves_the_low_study():
    """The control: the bound above is the climb's doing, not the simulation's."""
    endless = {now: [Level.STAT, Level.STAT] for now in range(300)}

    read, _ = _read_at(endless, Waiting(0, Level.LOW, 0), climbing=False)

    assert read is None


@given(
    arrived=st.integers(0, 100),
    later=st.lists(st.tuples(LEVELS, st.integers(0, 500)), max_size=30),
    passed=st.integers(0, 500),
)
def test_once_at_the_top_nobody_who_comes_later_gets_ahead(
    arrived: int, later: list[tuple[Level, int]], passed: int
):
    """The number of studies ahead can only shrink from then on."""
    top = arrived + 3 * int(TARGETS[Level.LOW])
    now = top + passed
    mine = _place(Level.LOW, arrived, now)

    newcomers = [_place(level, top + after + 1, now + after + 1) for level, after in later]

    assert all(mine < place for place in newcomers)


@given(
    waits=st.lists(
        st.tuples(LEVELS, st.floats(0, 0.99)), min_size=2, max_size=30, unique_by=lambda s: s
    )
)
def test_within_their_targets_studies_are_read_by_level_then_arrival(
    waits: list[tuple[Level, float]],
):
    """While nobody is overdue the order is the level, and inside it first come, first read."""
    now = 1000.0
    studies = [(level, now - share * TARGETS[level]) for level, share in waits]

    ordered = sorted(studies, key=lambda s: _place(s[0], s[1], now))

    assert ordered == sorted(studies, key=lambda s: (s[0].rank, _at(s[1])))


@given(level=LEVELS, waits=st.tuples(st.floats(0, 5000), st.floats(0, 5000)))
def test_waiting_never_moves_a_study_back(level: Level, waits: tuple[float, float]):
    """The rank only gets more urgent, and never more urgent than STAT."""
    early, late = sorted(waits)

    before, after = _place(level, 0, early), _place(level, 0, late)

    assert 0 <= after.rank <= before.rank <= level.rank
    assert after.level is list(Level)[after.rank]


def test_a_study_from_the_future_is_placed_by_its_level():
    """A clock that was set back must not break the list."""
    assert _place(Level.LOW, since=10, now=0).level is Level.LOW

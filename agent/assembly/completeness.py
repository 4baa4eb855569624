"""When is a study complete? Quiet long enough, counted complete, or out of patience. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from agent.settings import AssemblySettings


@dataclass(frozen=True)
class Arrival:
    """What is known of a study that is being received.

    Attributes:
        listening_since: before that nobody could have received anything: an agent that was down is
            no quiet study.
    """

    receiving_since: dt.datetime
    last_instance_at: dt.datetime
    modalities: frozenset[str]
    instance_count: int
    expected_count: int | None = None
    listening_since: dt.datetime | None = None


def quiet_period_s(modalities: Iterable[str], settings: AssemblySettings) -> float:
    """The longest quiet period among the study's modalities (the default for unlisted ones)."""
    by_modality = settings.quiet_s_by_modality
    periods = [by_modality.get(m, settings.quiet_s) for m in modalities]
    return max(periods, default=settings.quiet_s)


def reason_complete(arrival: Arrival, now: dt.datetime, settings: AssemblySettings) -> str:
    """Why the study is complete now; empty while it is not."""
    heard_at = max(arrival.last_instance_at, arrival.listening_since or arrival.last_instance_at)
    quiet_s = (now - heard_at).total_seconds()
    waited_s = (now - arrival.receiving_since).total_seconds()
    needed_s = quiet_period_s(arrival.modalities, settings)
    if counted_complete(arrival) and quiet_s >= settings.count_min_quiet_s:
        return f"all {arrival.instance_count} instances the archive counts are here"
    if quiet_s >= needed_s:
        return f"quiet for {needed_s:g} s"
    if waited_s >= settings.ceiling_s:
        return f"still arriving after the ceiling of {settings.ceiling_s:g} s"
    return ""


def counted_complete(arrival: Arrival) -> bool:
    """Whether the archive's own count has been reached."""
    return arrival.expected_count is not None and arrival.instance_count >= arrival.expected_count

"""When is a study complete? The strongest evidence there is decides, and says so. Pure.

Layers, strongest first: performed steps (MPPS), availability notices (IAN), the archive's own
count, the series its protocol makes, the sender's released associations, quiet time, the ceiling.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.settings import AssemblySettings


class Layer(enum.StrEnum):
    """What decided."""

    STEPS = "performed steps"
    NOTICES = "availability notices"
    COUNT = "archive's count"
    SERIES = "expected series"
    RELEASED = "associations released"
    QUIET = "quiet time"
    CEILING = "ceiling"


@dataclass(frozen=True)
class Named:
    """Instances that somebody named: how many, and how many of them are not here."""

    instances: int = 0
    missing: int = 0

    @property
    def all_here(self) -> bool:
        """Whether something was named, and all of it is here."""
        return self.instances > 0 and self.missing == 0


@dataclass(frozen=True)
class Expected:
    """The protocol that matched, and what of its series is missing (in words)."""

    protocol: str
    quiet_s: float
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What is known of a study that is being received.

    Attributes:
        expected_count: the archive's own count, when it was asked.
        listening_since: before that nobody could have received anything: an agent that was down is
            no quiet study.
        steps_open: performed steps that are in progress.
        made: instances named by completed steps.
        available: instances named by availability notices.
        expected: the configured protocol of the study, if one matches.
        released_at: when its sender released its last association; None while one is open.
    """

    receiving_since: dt.datetime
    last_instance_at: dt.datetime
    modalities: frozenset[str]
    instance_count: int
    expected_count: int | None = None
    listening_since: dt.datetime | None = None
    steps_open: int = 0
    made: Named = Named()
    available: Named = Named()
    expected: Expected | None = None
    released_at: dt.datetime | None = None


@dataclass(frozen=True)
class Verdict:
    """The study is complete: by which layer, and the sentence for its timeline."""

    layer: Layer
    reason: str


def decide(evidence: Evidence, now: dt.datetime, settings: AssemblySettings) -> Verdict | None:
    """The strongest evidence that the study is complete; None while it is not."""
    heard_at = max(evidence.last_instance_at, evidence.listening_since or evidence.last_instance_at)
    quiet_s = (now - heard_at).total_seconds()
    waited_s = (now - evidence.receiving_since).total_seconds()
    verdict = _said(evidence, quiet_s, settings) if not evidence.steps_open else None
    verdict = verdict or _waited(evidence, quiet_s, settings)
    if verdict is None and waited_s >= settings.ceiling_s:
        return Verdict(Layer.CEILING, _at_the_ceiling(evidence, settings))
    return verdict


def quiet_period_s(modalities: Iterable[str], settings: AssemblySettings) -> float:
    """The longest quiet period among the study's modalities (the default for unlisted ones)."""
    by_modality = settings.quiet_s_by_modality
    periods = [by_modality.get(m, settings.quiet_s) for m in modalities]
    return max(periods, default=settings.quiet_s)


def counted_complete(evidence: Evidence) -> bool:
    """Whether the archive's own count has been reached."""
    expected = evidence.expected_count
    return expected is not None and evidence.instance_count >= expected


def _said(evidence: Evidence, quiet_s: float, settings: AssemblySettings) -> Verdict | None:
    """What others say is complete; the modality's own word needs no quiet time."""
    if evidence.made.missing or (evidence.available.missing and not evidence.made.all_here):
        return None
    if evidence.made.all_here:
        count = evidence.made.instances
        return Verdict(
            Layer.STEPS, f"the modality completed its steps and all {count} instances are here"
        )
    settled = quiet_s >= settings.count_min_quiet_s
    if evidence.available.all_here and settled:
        count = evidence.available.instances
        return Verdict(Layer.NOTICES, f"all {count} instances announced as available are here")
    if counted_complete(evidence) and settled:
        count = evidence.instance_count
        return Verdict(Layer.COUNT, f"all {count} instances the archive counts are here")
    expected = evidence.expected
    if expected and not expected.missing and quiet_s >= expected.quiet_s:
        return Verdict(
            Layer.SERIES, f"all series of {expected.protocol} are here, quiet for {quiet_s:.0f} s"
        )
    return None


def _waited(evidence: Evidence, quiet_s: float, settings: AssemblySettings) -> Verdict | None:
    """Nobody says so, but nothing has come for long enough."""
    if evidence.steps_open:  # the modality is still at it: only the ceiling ends that
        return None
    missing = max(evidence.made.missing, evidence.available.missing)
    needed_s = quiet_period_s(evidence.modalities, settings)
    if missing and not evidence.made.all_here:
        needed_s = max(needed_s, settings.announced_quiet_s)
        reason = f"quiet for {needed_s:g} s, {missing} announced instances are missing"
        return Verdict(Layer.QUIET, reason) if quiet_s >= needed_s else None
    released_s = _released_quiet_s(evidence, settings.released_quiet_s_by_modality)
    if released_s is not None and released_s < needed_s and quiet_s >= released_s:
        return Verdict(
            Layer.RELEASED, f"its sender released all associations, quiet for {released_s:g} s"
        )
    if quiet_s >= needed_s:
        return Verdict(Layer.QUIET, f"quiet for {needed_s:g} s")
    return None


def _released_quiet_s(evidence: Evidence, by_modality: Mapping[str, float]) -> float | None:
    """Quiet time after release; None unless every modality has one, and the release came last."""
    if evidence.released_at is None or evidence.released_at < evidence.last_instance_at:
        return None
    periods = [by_modality.get(modality) for modality in evidence.modalities]
    known = [period for period in periods if period is not None]
    return max(known) if known and len(known) == len(periods) else None


def _at_the_ceiling(evidence: Evidence, settings: AssemblySettings) -> str:
    limit = f"the ceiling of {settings.ceiling_s:g} s"
    if evidence.steps_open:
        return f"a step is still in progress after {limit}"
    missing = max(evidence.made.missing, evidence.available.missing)
    if missing:
        return f"{missing} announced instances are missing after {limit}"
    return f"still arriving after {limit}"

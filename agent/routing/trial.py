"""What would happen to a study, and why: rules, packs, series, priorities and channels. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent import facts as study_facts
from agent.facts import StudyFacts
from agent.routing import rules
from agent.routing.book import RuleBook
from agent.routing.rules import Route
from agent.settings import MESSAGE_DESTINATIONS, Destination, RoutingRule
from inference.volumes import eligibility
from inference.volumes.eligibility import SeriesSummary


@dataclass(frozen=True)
class RuleSeen:
    """One routing rule: does it match, and does it decide (the first that matches)?"""

    name: str
    outcome: str
    matches: bool
    decides: bool


@dataclass(frozen=True)
class SeriesSeen:
    """One series; `reason` says why no model would be given it, empty = it would."""

    number: int | None
    modality: str
    description: str
    images: int
    reason: str


@dataclass(frozen=True)
class ChannelSeen:
    """One destination: what it would get; `withheld` says why it would not, empty = it would."""

    destination: str
    kind: str
    sends: tuple[str, ...]
    withheld: str


@dataclass(frozen=True)
class Trial:
    """The whole answer.

    Attributes:
        floor: level of the order, below which nothing brings the study; empty when unknown.
        overrides: site rules whose conditions hold (some also ask for a finding).
        provisional: whether it would get a priority before it is complete.
    """

    facts: StudyFacts
    rules: tuple[RuleSeen, ...]
    route: Route
    series: tuple[SeriesSeen, ...]
    channels: tuple[ChannelSeen, ...]
    floor: str
    overrides: tuple[str, ...]
    provisional: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class GivenSeries:
    """A series of the study on trial."""

    number: int | None
    summary: SeriesSummary
    own_result: bool = False


def try_out(
    facts: StudyFacts,
    series: Sequence[GivenSeries],
    book: RuleBook,
    notes: Sequence[str] = (),
) -> Trial:
    """Ask all rules what they would do with a study."""
    route = rules.route(facts, book.routing)
    return Trial(
        facts=facts,
        rules=_rules(facts, book),
        route=route,
        series=tuple(_series(one, _modality(series)) for one in series),
        channels=tuple(_channel(d, route, book) for d in book.destinations),
        floor=str(book.priority.ordered.get(facts.ordered_priority.upper(), "")),
        overrides=tuple(
            f"{o.name}: at least {o.at_least}" + (f", if {o.finding} is found" * bool(o.finding))
            for o in book.priority.overrides
            if study_facts.matches(o.when, facts)
        ),
        provisional=any(study_facts.matches(m, facts) for m in book.provisional),
        notes=tuple(notes),
    )


def outcome(rule: RoutingRule) -> str:
    """What a rule does, in words."""
    return f"skip: {rule.skip}" if rule.skip else f"read by {', '.join(rule.all_packs)}"


def _rules(facts: StudyFacts, book: RuleBook) -> tuple[RuleSeen, ...]:
    hits = [study_facts.matches(rule.when, facts) for rule in book.routing.rules]
    first = hits.index(True) if True in hits else -1
    return tuple(
        RuleSeen(rule.name, outcome(rule), hit, n == first)
        for n, (rule, hit) in enumerate(zip(book.routing.rules, hits, strict=True))
    )


def _modality(series: Sequence[GivenSeries]) -> str | None:
    """The modality that the packs are asked to read: that of most series."""
    found = [s.summary.modality for s in series if s.summary.modality in {"CT", "MR"}]
    return max(("CT", "MR"), key=found.count) if found else None


def _series(given: GivenSeries, modality: str | None) -> SeriesSeen:
    summary = given.summary
    reason = "a result of this agent" if given.own_result else ""
    return SeriesSeen(
        number=given.number,
        modality=summary.modality,
        description=summary.description,
        images=summary.frames,
        reason=reason or eligibility.judge(summary, modality).reason,
    )


def _channel(destination: Destination, route: Route, book: RuleBook) -> ChannelSeen:
    told = destination.kind in MESSAGE_DESTINATIONS
    sends = [k for k in destination.send if told or k in book.results.kinds]
    return ChannelSeen(
        destination=destination.name,
        kind=destination.kind,
        sends=tuple(sends),
        withheld=_withheld(destination, route, book),
    )


def _withheld(destination: Destination, route: Route, book: RuleBook) -> str:
    if not route.packs:
        return "the study is not read"
    if destination.shadow:
        return "the destination is in shadow mode"
    live = [name for name in route.packs if name in book.packs and not book.packs[name].shadow]
    return "" if live else "all packs are in shadow mode"

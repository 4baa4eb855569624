"""Study facts → a pack, or the reason why no pack reads it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent import facts as study_facts
from agent.settings import RoutingSettings


@dataclass(frozen=True)
class Route:
    """The outcome: a pack, or (pack empty) the reason the user sees."""

    rule: str
    pack: str = ""
    reason: str = ""


def route(facts: study_facts.StudyFacts, settings: RoutingSettings) -> Route:
    """Ask the rules in their order; the first that matches decides."""
    for rule in settings.rules:
        if study_facts.matches(rule.when, facts):
            return Route(rule=rule.name, pack=rule.pack, reason=rule.skip)
    return Route(rule="", reason=settings.no_match)

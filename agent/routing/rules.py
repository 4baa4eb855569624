"""Study facts → the packs that read it, or the reason why none does. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent import facts as study_facts
from agent.settings import RoutingSettings


@dataclass(frozen=True)
class Route:
    """The outcome: packs in the order they run, or (none) the reason the user sees."""

    rule: str
    packs: tuple[str, ...] = ()
    reason: str = ""

    @property
    def pack(self) -> str:
        """The first of the packs; empty when there is none."""
        return self.packs[0] if self.packs else ""


def route(facts: study_facts.StudyFacts, settings: RoutingSettings) -> Route:
    """Ask the rules in their order; the first that matches decides."""
    for rule in settings.rules:
        if study_facts.matches(rule.when, facts):
            return Route(rule=rule.name, packs=rule.all_packs, reason=rule.skip)
    return Route(rule="", reason=settings.no_match)

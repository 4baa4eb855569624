"""The rules of this installation as one value: what decides about a study before it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.config import Config
from agent.settings import (
    Destination,
    Match,
    PackSettings,
    PrioritySettings,
    ResultSettings,
    RoutingSettings,
)


@dataclass(frozen=True)
class RuleBook:
    """Routing, packs, priority and destinations, as configured now."""

    routing: RoutingSettings
    packs: Mapping[str, PackSettings] = field(default_factory=dict)
    priority: PrioritySettings = field(default_factory=PrioritySettings)
    results: ResultSettings = field(default_factory=ResultSettings)
    destinations: tuple[Destination, ...] = ()
    provisional: tuple[Match, ...] = ()

    @classmethod
    def of(cls, config: Config) -> RuleBook:
        """The rules of a configuration."""
        return cls(
            routing=config.routing,
            packs=config.packs,
            priority=config.priority,
            results=config.results,
            destinations=config.destinations,
            provisional=config.assembly.provisional,
        )

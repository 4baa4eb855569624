"""Several services on one port: an event goes to the service whose SOP class it came under.

pynetdicom keeps one handler per kind of event; N-CREATE alone is spoken by performed procedure
steps, availability notices and workitems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pynetdicom.presentation import PresentationContext

#: PS3.7 annex C: the SOP class does not know this operation.
UNRECOGNIZED_OPERATION = 0x0211

Handler = Callable[[Any], Any]


class Hosted(Protocol):
    """What a service must say of itself to be hosted."""

    @property
    def contexts(self) -> Sequence[PresentationContext]:
        """Its presentation contexts."""

    @property
    def evt_handlers(self) -> Sequence[tuple[Any, Handler]]:
        """Its handlers, one per kind of pynetdicom event."""


@dataclass(frozen=True)
class Service:
    """A service as the storage server hosts it."""

    contexts: tuple[PresentationContext, ...]
    evt_handlers: tuple[tuple[Any, Handler], ...]


def combine(services: Iterable[Hosted]) -> Service:
    """One service of several; where two name the same SOP class, the later one has it."""
    contexts: dict[str, PresentationContext] = {}
    by_event: dict[Any, dict[str, Handler]] = {}
    for service in services:
        names = {str(context.abstract_syntax): context for context in service.contexts}
        contexts.update(names)
        for event, handler in service.evt_handlers:
            by_event.setdefault(event, {}).update(dict.fromkeys(names, handler))
    return Service(
        contexts=tuple(contexts.values()),
        evt_handlers=tuple((event, _by_class(table)) for event, table in by_event.items()),
    )


def _by_class(table: dict[str, Handler]) -> Handler:
    def handle(event: Any) -> Any:
        handler = table.get(str(event.context.abstract_syntax))
        return handler(event) if handler else (UNRECOGNIZED_OPERATION, None)

    return handle

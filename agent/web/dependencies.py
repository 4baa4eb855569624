"""What the web application is given by the composition root."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session, sessionmaker

from agent.clock import utc_now
from agent.health import Health
from agent.observability.metrics import Metrics
from agent.settings import PrioritySettings, WebSettings
from agent.web.access import AccessControl


@dataclass(frozen=True)
class PackNotice:
    """What the page must say about a loaded pack."""

    title: str
    version: str
    notice: str
    demonstration: bool


@dataclass(frozen=True)
class WebDependencies:
    """Everything the routes use.

    Attributes:
        overlay: (study id, finding label) -> PNG of the key slice; raises `PictureError`.
        retry_study, retry_delivery: (id, who) -> None; raise `AgentError` or `IllegalMoveError`
            when there is nothing to retry, `LookupError` when there is no such row.
        packs: by name; a demonstration pack puts its warning on every page.
    """

    sessions: sessionmaker[Session]
    web: WebSettings
    priority: PrioritySettings
    metrics: Metrics
    health: Callable[[], Health]
    overlay: Callable[[int, str], bytes]
    retry_study: Callable[[int, str], None]
    retry_delivery: Callable[[int, str], None]
    packs: Mapping[str, PackNotice] = field(default_factory=dict)
    clock: Callable[[], dt.datetime] = utc_now
    version: str = ""
    access: AccessControl | None = None
    """Who may do what; None = nobody logs in, as on this machine alone."""

    @property
    def demonstration(self) -> bool:
        """Whether any loaded pack is a demonstration."""
        return any(pack.demonstration for pack in self.packs.values())

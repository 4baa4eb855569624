"""What the web application is given by the composition root."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session, sessionmaker

from agent.access.oidc import Oidc
from agent.clock import utc_now
from agent.health import Health
from agent.observability.metrics import Metrics
from agent.routing.book import RuleBook
from agent.settings import Destination, PrioritySettings, WebSettings
from agent.web.access import AccessControl
from agent.web.trail import Trail

if TYPE_CHECKING:
    from agent.web.pictures import Slice
from agent.web.dicomweb.catalog import DicomWeb


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
    destinations: Sequence[Destination] = ()
    """Who is told of a level that a reader set, and whose state the operations page shows."""
    slices: Callable[[int, str, int | None, bool], Slice] | None = None
    """(study id, finding label, slice or None = key slice, overlay) -> one slice of its series."""
    results_dir: Path | None = None
    """Where result objects lie; their text is shown from there."""
    spool_dir: Path | None = None
    """Whose free space the operations page shows."""
    access: AccessControl | None = None
    """Who may do what; None = nobody logs in, as on this machine alone."""
    oidc: Oidc | None = None
    """Where people log in, if not here."""
    audit: Trail | None = None
    """What everybody looks at and does."""
    rules: RuleBook | None = None
    """What the rule tester asks; None = no tester."""
    dicomweb: DicomWeb | None = None
    """Images and results over HTTP; None = off."""

    @property
    def demonstration(self) -> bool:
        """Whether any loaded pack is a demonstration."""
        return any(pack.demonstration for pack in self.packs.values())

"""Every look and every change leaves its audit event before the first byte of the answer goes out.

Nothing has to be done in a route for it: whoever passed the door (`agent.web.access.require`), the
route and the study it names say it all. A route about a study that its path does not name calls
`about`. If the event cannot be written, nothing is shown.
"""

from __future__ import annotations

import collections
import datetime as dt
import threading
from collections.abc import Sequence

from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.access.principal import Principal
from agent.audit.kinds import Kind, Occurrence, Outcome
from agent.audit.record import record
from agent.clock import Clock
from agent.web import access

#: Names of path parameters that name a study.
STUDY_PARAMETERS = ("reference", "study", "study_uid", "study_key", "study_instance_uid")
DICOMWEB = "/dicom-web"
MAX_REMEMBERED = 10_000
UNKNOWN = "unknown"


class Trail:
    """Writes audit events; remembers for a while who looked at what."""

    def __init__(self, sessions: sessionmaker[Session], clock: Clock, repeat_s: float) -> None:
        self._sessions = sessions
        self._clock = clock
        self._repeat = dt.timedelta(seconds=repeat_s)
        self._seen: collections.OrderedDict[tuple[str, ...], dt.datetime]
        self._seen = collections.OrderedDict()
        self._lock = threading.Lock()

    def write(self, *occurrences: Occurrence) -> None:
        """Commit the events."""
        now = self._clock()
        with self._sessions.begin() as session:
            for occurrence in occurrences:
                record(session, occurrence, now)

    def look(self, occurrences: Sequence[Occurrence]) -> None:
        """Commit the events of a request that are no repetition."""
        fresh = [one for one in occurrences if not self._is_repeated(one)]
        if fresh:
            self.write(*fresh)
            self._remember(fresh)

    def _is_repeated(self, one: Occurrence) -> bool:
        if one.kind not in LOOKS:
            return False
        with self._lock:
            at = self._seen.get(_key(one))
        return at is not None and self._clock() < at + self._repeat

    def _remember(self, written: Sequence[Occurrence]) -> None:
        now = self._clock()
        with self._lock:
            for one in written:
                self._seen[_key(one)] = now
                self._seen.move_to_end(_key(one))
            while len(self._seen) > MAX_REMEMBERED:
                self._seen.popitem(last=False)


#: Again, these change nothing: the page asks every few seconds, and whoever is refused may go on.
LOOKS = frozenset({Kind.VIEWED, Kind.SEARCHED, Kind.RETRIEVED, Kind.REFUSED})


class Auditing:
    """ASGI middleware around the routes."""

    def __init__(self, app: ASGIApp, trail: Trail) -> None:
        self._app = app
        self._trail = trail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; its audit event comes before its answer."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})  # one for all: routers may copy the scope
        connection = HTTPConnection(scope)

        async def send_after_audit(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.accept"}:
                occurrences = _occurrences(connection, message.get("status", 101))
                if occurrences:
                    await run_in_threadpool(self._trail.look, occurrences)
            await send(message)

        await self._app(scope, receive, send_after_audit)


def about(connection: HTTPConnection, *studies: str, kind: Kind | None = None) -> None:
    """Say which studies (key, UID or id) a request was about, or what it was, for the audit event.

    For routes whose path does not tell; an export or a change of priority names its kind.
    """
    connection.state.audit_studies = studies
    if kind:
        connection.state.audit_kind = kind


def _occurrences(connection: HTTPConnection, status: int) -> list[Occurrence]:
    principal: Principal | None = getattr(connection.state, "principal", None)
    door = getattr(connection.state, "door", None)
    if door is None:
        return []
    method, template, parameters = door
    detail = f"{method} {template}"
    address = access.address(connection)
    if principal is None:
        if "authorization" not in connection.headers:
            return []  # a browser on its way to the login page
        outcome = Outcome.SERIOUS_FAILURE
        return [Occurrence(Kind.REFUSED, UNKNOWN, "", address, detail=detail, outcome=outcome)]
    studies: Sequence[str] = getattr(connection.state, "audit_studies", ()) or [
        str(parameters[name]) for name in STUDY_PARAMETERS if name in parameters
    ]
    if status in {401, 403}:
        kind, outcome = Kind.REFUSED, Outcome.MINOR_FAILURE
    elif status >= 400:
        return []  # nothing was shown, nothing was changed
    else:
        kind, outcome = _kind(connection, method, template, bool(studies)), Outcome.SUCCESS
    return [
        Occurrence(kind, principal.name, principal.role, address, study, detail, outcome)
        for study in studies or [""]
    ]


def _kind(connection: HTTPConnection, method: str, template: str, has_study: bool) -> Kind:
    """What a successful request was, by its route."""
    said: Kind | None = getattr(connection.state, "audit_kind", None)
    if said:
        return said
    if method in access.SAFE_METHODS:
        if not has_study:
            return Kind.SEARCHED
        # QIDO names the study of the series it lists; all else under it hands out objects.
        listing = template.endswith(("/series", "/instances"))
        return Kind.RETRIEVED if template.startswith(DICOMWEB) and not listing else Kind.VIEWED
    if template.startswith(f"{DICOMWEB}/studies"):
        return Kind.STORED
    return Kind.PRIORITY_CHANGED if template.endswith("/priority") else Kind.CHANGED


def _key(one: Occurrence) -> tuple[str, ...]:
    if one.who == UNKNOWN:  # a stranger must not fill the table by asking for ever new things
        return one.kind, one.who, one.address
    # All pages and pictures of a study are one look; lists differ.
    what = one.study or one.detail
    return one.kind, one.who, one.address, what

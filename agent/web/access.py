"""The door of every route: who asks, and may they; a route without a stated role fails a test.

A router says it once: ``APIRouter(dependencies=[Depends(require(Role.VIEWER))])``; a route that
needs more adds its own. Roles: see `agent.access.principal`. It works for WebSockets too.
"""

from __future__ import annotations

import contextvars
import hmac
from typing import Protocol

from fastapi import HTTPException, WebSocketException
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from agent.access.address import client, is_loopback, is_trusted
from agent.access.principal import ANONYMOUS, Principal, Role, Via
from agent.settings_access import WebAccess

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf_token"
MAX_NAME = 128
DICOMWEB = "/dicom-web/"

#: Set by `require`, so that templates and handlers know who asks.
_asking: contextvars.ContextVar[Principal | None] = contextvars.ContextVar("asking", default=None)


class AccessControl(Protocol):
    """What the application knows about people; kept in ``app.state.access``."""

    def identify(self, connection: HTTPConnection) -> Principal | None:
        """Who asks; None when we do not know them."""


class OpenAccess:
    """Nobody logs in: this machine only, or behind a proxy that names the user in a header."""

    def __init__(self, web: WebAccess, user_header: str) -> None:
        self._web = web
        self._user_header = user_header

    def identify(self, connection: HTTPConnection) -> Principal | None:
        """Whom the proxy names; behind one, nobody comes in unnamed."""
        if not self._user_header:
            return Principal(ANONYMOUS, Role.ADMINISTRATOR)
        named = connection.headers.get(self._user_header, "").strip()[:MAX_NAME]
        if named and is_trusted(peer(connection), self._web.trusted_proxies):
            return Principal(named, self._web.user_header_role, Via.PROXY)
        if self._web.behind_proxy or not is_loopback(self._web.host):
            return None
        return Principal(ANONYMOUS, self._web.user_header_role, Via.PROXY)


class Requires:
    """The dependency that `require` makes; holds the roles so that a test can read them."""

    def __init__(self, roles: tuple[Role, ...]) -> None:
        self.roles = roles

    async def __call__(self, connection: HTTPConnection) -> Principal:
        """The principal, if one of the roles is theirs.

        Raises:
            HTTPException, WebSocketException: 401 unknown, 403 not allowed or no CSRF token.
        """
        connection.state.door = _door(connection)  # for the audit trail, whatever the outcome
        principal = await _identify(connection)
        if principal is None:
            raise _refusal(connection, 401, "log in, or send a bearer token")
        if not principal.may(self.roles):
            wanted = " or ".join(self.roles)
            raise _refusal(connection, 403, f"your role is {principal.role}; this needs {wanted}")
        if not await _is_own_page(connection, principal):
            raise _refusal(connection, 403, "the page is too old or not ours; load it again")
        return principal


def require(*roles: Role) -> Requires:
    """A dependency that lets through whoever fulfils one of the roles; returns the `Principal`."""
    if not roles:
        raise ValueError("name at least one role")
    return Requires(roles)


def who(connection: HTTPConnection) -> Principal:
    """Who asks; only behind `require`."""
    principal: Principal = connection.state.principal
    return principal


def peer(connection: HTTPConnection) -> str:
    """The address of the other end of the wire."""
    return connection.client.host if connection.client else ""


def address(connection: HTTPConnection) -> str:
    """The address of the client, behind the proxies we trust."""
    forwarded = connection.headers.get("x-forwarded-for", "")
    networks: tuple[str, ...] = connection.app.state.trusted_proxies
    return client(peer(connection), forwarded, networks)


def asking() -> Principal | None:
    """Who asks, for templates; None outside of a request or before the door."""
    return _asking.get()


def _door(connection: HTTPConnection) -> tuple[str, str, dict[str, object]]:
    """Method, path template and path parameters of the route."""
    scope = connection.scope
    template = getattr(scope.get("route"), "path", "") or connection.url.path
    return scope.get("method", "GET"), template, dict(connection.path_params)


async def _identify(connection: HTTPConnection) -> Principal | None:
    known: Principal | None = getattr(connection.state, "principal", None)
    if known is None:
        access: AccessControl = connection.app.state.access
        known = await run_in_threadpool(access.identify, connection)
        connection.state.principal = known
    _asking.set(known)
    return known


async def _is_own_page(connection: HTTPConnection, principal: Principal) -> bool:
    """Whether a changing request of a browser repeats what only our page knows.

    A WebSocket handshake is a GET that changes nothing by itself, but any site may ask for one with
    our cookie: the origin must be ours.
    """
    if connection.scope["type"] == "websocket":
        return principal.via is Via.TOKEN or _same_origin(connection)
    if principal.via is Via.TOKEN or connection.scope["method"] in SAFE_METHODS:
        return True
    if not _same_origin(connection):
        return False
    if principal.via is not Via.SESSION:  # no cookie of ours that could be repeated
        return True
    sent = connection.headers.get(CSRF_HEADER) or await _form_token(connection)
    return hmac.compare_digest(sent.encode(), principal.csrf_token.encode())


async def _form_token(connection: HTTPConnection) -> str:
    """The hidden field of a plain form; forms with files send the header instead."""
    from starlette.requests import Request

    kind = connection.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded" or not isinstance(connection, Request):
        return ""
    value = (await connection.form()).get(CSRF_FIELD, "")
    return value if isinstance(value, str) else ""


def _same_origin(connection: HTTPConnection) -> bool:
    origin = connection.headers.get("origin")
    listed: tuple[str, ...] = connection.app.state.other_origins
    if origin in listed and connection.url.path.startswith(DICOMWEB):
        return True  # a viewer that configuration names (CORS)
    if connection.headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
        return False
    if origin is None:  # no browser
        return True
    return origin.partition("://")[2] == connection.headers.get("host", "")


def _refusal(connection: HTTPConnection, status: int, why: str) -> Exception:
    if connection.scope["type"] == "websocket":
        return WebSocketException(1008, why)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return HTTPException(status, why, headers)

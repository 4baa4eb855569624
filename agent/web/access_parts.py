"""From configuration to the parts that know people: login, single sign-on, audit trail."""

from __future__ import annotations

from typing import TypedDict

import structlog

from agent.access import binding
from agent.access.oidc import Oidc
from agent.access.passwords import Passwords
from agent.access.sessions import Sessions
from agent.access.throttle import Throttle
from agent.foundation import Foundation
from agent.settings import WebSettings
from agent.web.access import AccessControl
from agent.web.identity import KnownAccess
from agent.web.trail import Trail

CALLBACK = "/login/oidc/callback"

log = structlog.get_logger(__name__)


class Parts(TypedDict):
    """Fields of `WebDependencies`."""

    access: AccessControl | None
    oidc: Oidc | None
    audit: Trail


def of(base: Foundation) -> Parts:
    """What `[web]` and `[audit]` ask for.

    Raises:
        UnsafeBinding: the page would be served to others without login or TLS.
    """
    web = base.config.web
    for warning in binding.check(web):
        log.warning("web_open_to_others", why=warning)
    return {
        "access": _known(base, web) if web.auth != "none" else None,
        "oidc": Oidc(web.oidc, own_url(web) + CALLBACK, base.clock) if web.auth == "oidc" else None,
        "audit": Trail(base.sessions, base.clock, base.config.audit.repeat_s),
    }


def own_url(web: WebSettings) -> str:
    """Where a browser finds us."""
    if web.public_url:
        return web.public_url.rstrip("/")
    scheme = "https" if web.tls.certificate else "http"
    return f"{scheme}://{web.host}:{web.port}"


def _known(base: Foundation, web: WebSettings) -> KnownAccess:
    passwords = Passwords(web.passwords)
    throttle = Throttle(web.passwords)
    sessions = Sessions(base.sessions, web.sessions, passwords, throttle, base.clock)
    return KnownAccess(sessions, web)

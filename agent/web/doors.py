"""Put access control, login pages and the audit trail into the application."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse

from agent.web import routes_login
from agent.web.access import OpenAccess
from agent.web.dependencies import WebDependencies
from agent.web.identity import KnownAccess
from agent.web.pages import Pages
from agent.web.trail import Auditing


def install(app: FastAPI, deps: WebDependencies, pages: Pages) -> None:
    """Who comes in, where they log in, and what is written down of it."""
    app.state.access = deps.access or OpenAccess(deps.web, deps.web.user_header)
    app.state.trusted_proxies = deps.web.trusted_proxies
    app.state.other_origins = deps.dicomweb.settings.cors_origins if deps.dicomweb else ()
    if isinstance(deps.access, KnownAccess) and deps.audit:
        app.include_router(routes_login.router(deps.access, deps.oidc, pages, deps.audit))
    if deps.audit:
        app.add_middleware(Auditing, trail=deps.audit)


def to_login(request: Request, status: int) -> RedirectResponse | None:
    """Where a person who is not logged in is sent; None for programs and scripts."""
    wants_page = "text/html" in request.headers.get("accept", "")
    logs_in = isinstance(request.app.state.access, KnownAccess)
    if status != 401 or not logs_in or request.method != "GET" or not wants_page:
        return None
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?{urlencode({'next': path})}", 303)

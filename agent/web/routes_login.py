"""Log in and out; the only pages without a door."""

from __future__ import annotations

import hmac
from typing import Annotated
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from agent.access import secrets
from agent.access.errors import AccessError, LoginRefused, Throttled
from agent.access.oidc import Oidc
from agent.access.principal import Principal
from agent.audit.kinds import Kind, Occurrence, Outcome
from agent.web import access
from agent.web.identity import KnownAccess
from agent.web.pages import Pages
from agent.web.trail import Trail

LOGIN_COOKIE = "wlagent_login"
SEE_OTHER = 303

log = structlog.get_logger(__name__)


def router(known: KnownAccess, oidc: Oidc | None, pages: Pages, trail: Trail) -> APIRouter:
    """``/login``, ``/logout`` and, with single sign-on, ``/login/oidc``."""
    routes = APIRouter(include_in_schema=False)
    _add_logout(routes, known, trail)
    if oidc:
        _add_single_sign_on(routes, known, oidc, pages, trail)
    else:
        _add_form(routes, known, pages, trail)
    return routes


def _add_form(routes: APIRouter, known: KnownAccess, pages: Pages, trail: Trail) -> None:
    def form(next_path: str, why: str, status: int, name: str = "") -> Response:
        token = secrets.new_secret()
        values = {"token": token, "next": next_path, "why": why, "entered": name}
        response = HTMLResponse(pages.render("login.html", oidc=False, **values), status)
        known.keep_briefly(response, LOGIN_COOKIE, token, "/login")
        return response

    @routes.get("/login")
    def ask(next: str = "/") -> Response:  # noqa: A002  the name in the URL
        return form(own_path(next), "", 200)

    @routes.post("/login")
    def log_in(
        request: Request,
        name: Annotated[str, Form(max_length=128)],
        password: Annotated[str, Form(max_length=1024)],
        token: Annotated[str, Form(max_length=128)],
        next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002
    ) -> Response:
        if not hmac.compare_digest(request.cookies.get(LOGIN_COOKIE, "").encode(), token.encode()):
            return form(own_path(next), "The form was too old. Try again.", 403, name)
        address = access.address(request)
        try:
            secret, principal = known.sessions.log_in(name, password, address)
        except (LoginRefused, Throttled) as error:
            log.warning("login_refused", error_type=type(error).__name__)
            trail.write(_failed(name, address, error))
            status = 429 if isinstance(error, Throttled) else 401
            response = form(own_path(next), str(error).capitalize() + ".", status, name)
            if isinstance(error, Throttled):
                response.headers["Retry-After"] = str(int(error.wait_s) + 1)
            return response
        return _welcome(request, known, trail, secret, principal, own_path(next))


def _add_single_sign_on(
    routes: APIRouter, known: KnownAccess, oidc: Oidc, pages: Pages, trail: Trail
) -> None:
    @routes.get("/login")
    def ask(next: str = "/") -> Response:  # noqa: A002
        # A page with a button, not a redirect: whoever logged out is not logged in again at once.
        html = pages.render("login.html", oidc=True, next=own_path(next), why="")
        return HTMLResponse(html)

    @routes.get("/login/oidc")
    def begin(next: str = "/") -> Response:  # noqa: A002
        try:
            url, state = oidc.begin(own_path(next))
        except AccessError as error:
            log.error("single_sign_on_failed", why=str(error))
            raise HTTPException(502, "the login provider does not answer") from None
        response = RedirectResponse(url, SEE_OTHER)
        known.keep_briefly(response, LOGIN_COOKIE, state, "/login")
        return response

    @routes.get("/login/oidc/callback")
    def finish(request: Request, state: str = "", code: str = "") -> Response:
        address = access.address(request)
        begun = request.cookies.get(LOGIN_COOKIE, "")
        try:
            if not state or not hmac.compare_digest(begun.encode(), state.encode()):
                raise LoginRefused("this login was not begun in this browser; begin again")
            person = oidc.finish(code, state)
        except AccessError as error:
            log.warning("login_refused", error_type=type(error).__name__)
            trail.write(_failed("", address, error))
            html = pages.render("login.html", oidc=True, next="/", why=str(error).capitalize())
            return HTMLResponse(html, 403)
        secret, principal = known.sessions.start(person.name, person.role, address)
        return _welcome(request, known, trail, secret, principal, person.next_path)


def _add_logout(routes: APIRouter, known: KnownAccess, trail: Trail) -> None:
    @routes.post("/logout")
    def log_out(
        request: Request, csrf_token: Annotated[str, Form(max_length=128)] = ""
    ) -> Response:
        principal = known.identify(request)
        response = RedirectResponse("/login", SEE_OTHER)
        if principal is None:
            return response
        if not hmac.compare_digest(csrf_token.encode(), principal.csrf_token.encode()):
            raise HTTPException(403, "the page is too old or not ours; load it again")
        known.forget(response, request)
        address = access.address(request)
        trail.write(Occurrence(Kind.LOGOUT, principal.name, principal.role, address))
        return response


def _welcome(
    request: Request,
    known: KnownAccess,
    trail: Trail,
    secret: str,
    principal: Principal,
    next_path: str,
) -> Response:
    """A new cookie for the new session; what the browser had before ends."""
    address = access.address(request)
    trail.write(Occurrence(Kind.LOGIN, principal.name, principal.role, address))
    response = RedirectResponse(next_path, SEE_OTHER)
    known.end(request)
    known.keep(response, secret)
    response.delete_cookie(LOGIN_COOKIE, path="/login")
    log.info("logged_in")
    return response


def own_path(path: str) -> str:
    """A path of this application, whatever was asked for: never another site."""
    parts = urlsplit(path)
    odd = "\\" in path or any(ord(c) < 32 for c in path)
    if odd or parts.scheme or parts.netloc or not path.startswith("/") or path.startswith("//"):
        return "/"
    return path


def _failed(name: str, address: str, error: Exception) -> Occurrence:
    why = "too many failures" if isinstance(error, Throttled) else "refused"
    who = name or "unknown"
    return Occurrence(
        Kind.LOGIN_FAILED, who, "", address, detail=why, outcome=Outcome.SERIOUS_FAILURE
    )

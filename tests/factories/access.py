"""The web application with accounts: cheap passwords, one account a role, browsers with cookies."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from dataclasses import dataclass, field
from typing import Any

import httpx
from factories import rows
from fastapi import FastAPI
from sqlalchemy.orm import Session, sessionmaker

from agent.access import accounts
from agent.access.oidc import Oidc
from agent.access.passwords import Passwords
from agent.access.principal import Role
from agent.access.sessions import Sessions
from agent.access.throttle import Throttle
from agent.health import Health
from agent.observability.metrics import Metrics
from agent.routing.book import RuleBook
from agent.settings import PrioritySettings, WebSettings
from agent.web.app import create_app
from agent.web.dependencies import WebDependencies
from agent.web.identity import KnownAccess
from agent.web.trail import Trail

PASSWORD = "correct horse battery"
CHEAP = {"time_cost": 1, "memory_kib": 8, "parallelism": 1}


@dataclass
class Clock:
    """A clock that the test sets."""

    now: dt.datetime = rows.NOW

    def __call__(self) -> dt.datetime:
        """Now."""
        return self.now

    def advance(self, **delta: float) -> None:
        """Later."""
        self.now += dt.timedelta(**delta)


@dataclass
class House:
    """The application, its record and its clock."""

    app: FastAPI
    sessions: sessionmaker[Session]
    clock: Clock
    known: KnownAccess
    passwords: Passwords

    def browser(self, **options: Any) -> Browser:
        """A new browser, not logged in."""
        return Browser(self.app, **options)

    def logged_in(self, name: str = "rad") -> Browser:
        """A browser that is logged in."""
        browser = self.browser()
        assert browser.log_in(name).status_code == 303
        return browser

    def account(self, name: str, role: Role) -> None:
        """Make an account."""
        with self.sessions.begin() as session:
            accounts.add(session, self.passwords, name, role, PASSWORD, self.clock())


@dataclass
class Browser:
    """Keeps cookies, follows nothing; asks as if it were at http://127.0.0.1:8080."""

    app: FastAPI
    address: str = "127.0.0.1"
    base: str = "http://127.0.0.1:8080"
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request."""
        return asyncio.run(self._ask(method, path, options))

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET, as a person does."""
        options.setdefault("headers", {"Accept": "text/html"})
        return self.ask("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """POST."""
        return self.ask("POST", path, **options)

    def log_in(self, name: str, password: str = PASSWORD, **more: str) -> httpx.Response:
        """Fill in the form."""
        token = field_value(self.get("/login").text, "token")
        form = {"name": name, "password": password, "token": token, **more}
        return self.post("/login", data=form)

    def csrf(self) -> str:
        """The token of the page."""
        found = re.search(r'name="csrf-token" content="(\w+)"', self.get("/").text)
        assert found
        return found.group(1)

    async def _ask(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(
            self.app, raise_app_exceptions=False, client=(self.address, 4711)
        )
        async with httpx.AsyncClient(
            transport=transport, base_url=self.base, cookies=self.cookies
        ) as client:
            answer = await client.request(method, path, **options)
            self.cookies = {c.name: c.value or "" for c in client.cookies.jar}
            return answer


def house(
    sessions: sessionmaker[Session],
    oidc: Oidc | None = None,
    rules: RuleBook | None = None,
    *,
    clock: Clock | None = None,
    people: bool = True,
    **web: Any,
) -> House:
    """An application where people log in; accounts rad, view and boss."""
    settings = WebSettings(auth="local", passwords=CHEAP, **web)  # type: ignore[arg-type]
    clock, passwords = clock or Clock(), Passwords(settings.passwords)
    throttle = Throttle(settings.passwords)
    known = KnownAccess(Sessions(sessions, settings.sessions, passwords, throttle, clock), settings)
    deps = WebDependencies(
        sessions=sessions,
        web=settings,
        priority=PrioritySettings(),
        metrics=Metrics(),
        health=lambda: Health(()),
        overlay=lambda *_: b"png",
        retry_study=lambda *_: None,
        retry_delivery=lambda *_: None,
        clock=clock,
        access=known,
        oidc=oidc,
        audit=Trail(sessions, clock, repeat_s=300),
        rules=rules,
    )
    made = House(create_app(deps), sessions, clock, known, passwords)
    if people:
        made.account("rad", Role.RADIOLOGIST)
        made.account("view", Role.VIEWER)
        made.account("boss", Role.ADMINISTRATOR)
    return made


def field_value(html: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert found, html
    return found.group(1)

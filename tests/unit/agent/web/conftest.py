"""A web application over a fresh database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from factories import rows
from fastapi import FastAPI
from sqlalchemy.orm import Session, sessionmaker

from agent.health import Check, Health, Severity
from agent.observability.metrics import Metrics
from agent.settings import PrioritySettings, WebSettings
from agent.web.app import create_app
from agent.web.dependencies import PackNotice, WebDependencies
from agent.web.pictures import PictureError

PNG = b"\x89PNG picture of "


class Browser:
    """Sends requests to the application as if it were at http://127.0.0.1:8080."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.app = app

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET."""
        return asyncio.run(self._send("GET", path, options))

    def post(self, path: str, **options: Any) -> httpx.Response:
        """POST."""
        return asyncio.run(self._send("POST", path, options))

    async def _send(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8080"
        ) as client:
            return await client.request(method, path, **options)


@dataclass
class Web:
    """The application, its database, and what it was asked to do."""

    sessions: sessionmaker[Session]
    retried: list[tuple[str, int, str]] = field(default_factory=list)
    health: Health = field(default_factory=lambda: Health((Check("database", Severity.OK),)))
    retry_error: Exception | None = None

    def client(self, *, demonstration: bool = False, **settings: object) -> Browser:
        """A client as a browser at 127.0.0.1."""
        deps = WebDependencies(
            sessions=self.sessions,
            web=WebSettings(**settings),  # type: ignore[arg-type]
            priority=PrioritySettings(),
            metrics=Metrics(),
            health=lambda: self.health,
            overlay=_overlay,
            retry_study=self._retry("study"),
            retry_delivery=self._retry("delivery"),
            packs={"demo-head": PackNotice("Demo", "1.0.0", "Not for clinical use", demonstration)},
            clock=lambda: rows.NOW,
            version="0.1.0",
        )
        return Browser(create_app(deps))

    def _retry(self, what: str) -> Callable[[int, str], None]:
        def retry(ident: int, who: str) -> None:
            if self.retry_error:
                raise self.retry_error
            self.retried.append((what, ident, who))

        return retry


def _overlay(study_id: int, label: str) -> bytes:
    if label == "absent":
        raise PictureError("the latest analysis does not localize such a finding")
    return PNG + f"{study_id} {label}".encode()


@pytest.fixture
def web(tmp_path: Path) -> Web:
    """An application without studies."""
    return Web(rows.sessions(tmp_path))

"""The server starts where it was told, answers, and stops cleanly."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from agent.web.server import WebServer, WebServerError


def _app() -> FastAPI:
    app = FastAPI()

    @app.get("/healthz")
    def alive() -> str:
        return "alive"

    return app


def test_port_zero_becomes_a_real_port_that_answers_and_then_does_not():
    """`port` is known after `start`; after `stop` nobody listens."""
    server = WebServer(_app(), "127.0.0.1", 0)
    server.start()
    url = f"http://127.0.0.1:{server.port}/healthz"
    try:
        answer = httpx.get(url)
    finally:
        server.stop()

    assert (answer.status_code, answer.json()) == (200, "alive")
    assert "server" not in answer.headers
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_a_port_in_use_is_named_with_the_mend():
    """The operator reads which keys to change."""
    first = WebServer(_app(), "127.0.0.1", 0)
    first.start()
    try:
        with pytest.raises(WebServerError, match=rf"web.port {first.port}.*choose another"):
            WebServer(_app(), "127.0.0.1", first.port).start()
    finally:
        first.stop()


def test_stopping_twice_or_unstarted_is_harmless():
    """Shutdown paths need not know how far the start came."""
    server = WebServer(_app(), "127.0.0.1", 0)
    server.stop()
    server.start()
    server.stop()
    server.stop()

"""Server-sent events: open pages are told once of what is new, and let go when the server stops."""

from __future__ import annotations

import asyncio
import http.client
import time
from typing import Any

import pytest
from factories import rows

from agent.web import changes as module
from agent.web.changes import Changes, TooManyListeners
from agent.web.server import WebServer


def _listen(port: int) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    stream = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    stream.request("GET", "/events")
    return stream, stream.getresponse()


def _until(answer: http.client.HTTPResponse, line: bytes) -> None:
    while True:
        read = answer.readline()
        assert read, f"the stream ended before {line!r}"
        if read.startswith(line):
            return


def test_a_page_is_told_of_a_change_and_of_nothing_else(web: Any):
    """The stream says that something changed and holds nothing of it."""
    with web.sessions.begin() as session:
        study = rows.study(session, priority="LOW")
    server = WebServer(web.client().app, "127.0.0.1", 0)
    server.start()
    try:
        stream, answer = _listen(server.port)
        assert answer.headers["content-type"].startswith("text/event-stream")
        _until(answer, b"event: hello")
        time.sleep(2 * module.EVERY_S)  # the first look is the one that later ones differ from
        with web.sessions.begin() as session:
            rows.event(session, study)
        changed = time.monotonic()
        _until(answer, b"event: change")
        assert answer.readline() == b"data:\n"
        assert time.monotonic() - changed < 5
        stream.close()
    finally:
        server.stop()


def test_a_server_that_stops_does_not_wait_for_its_listeners(web: Any):
    """The stream ends at once; a page then asks until the server is back."""
    server = WebServer(web.client().app, "127.0.0.1", 0)
    server.start()
    stream, answer = _listen(server.port)
    _until(answer, b"event: hello")

    started = time.monotonic()
    server.stop()

    assert time.monotonic() - started < 4  # it would drain for five seconds
    assert b"change" not in answer.read()
    stream.close()


def test_several_changes_are_told_as_one_and_silence_is_alive():
    """What matters is that there is something to fetch."""
    stamps = iter([1, 2, 3, *([3] * 1000)])
    changes = Changes(lambda: next(stamps), every_s=0.02)

    async def heard() -> list[bool]:
        told = []
        async for news in changes.listen(heartbeat_s=0.3):
            told.append(news)
            if not news:
                break
        return told

    told = asyncio.run(heard())

    assert told[-1] is False
    assert 1 <= told.count(True) <= 2


def test_more_listeners_than_are_served_are_turned_away(monkeypatch: pytest.MonkeyPatch):
    """They ask from time to time instead."""
    monkeypatch.setattr(module, "MAX_LISTENERS", 0)

    async def listen() -> None:
        async for _ in Changes(lambda: 1).listen():
            pass

    with pytest.raises(TooManyListeners):
        asyncio.run(listen())

"""Server-sent events: an open page is told at once that there is something new to fetch."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Depends, HTTPException
from fastapi.responses import StreamingResponse

from agent.access.principal import Role
from agent.web.access import require
from agent.web.changes import Changes, TooManyListeners

HEADERS = {"X-Accel-Buffering": "no"}  # nginx would keep the events for itself
RETRY_MS = 2000


def router(changes: Changes) -> APIRouter:
    """``/events``: no patient data in it, only that something changed."""
    routes = APIRouter(tags=["worklist"], dependencies=[Depends(require(Role.VIEWER))])

    @routes.get("/events", include_in_schema=False)
    async def events() -> StreamingResponse:
        if changes.full:
            raise HTTPException(503, "too many open pages; this one asks from time to time")
        return StreamingResponse(_events(changes), media_type="text/event-stream", headers=HEADERS)

    return routes


async def _events(changes: Changes) -> AsyncIterator[str]:
    yield f"retry: {RETRY_MS}\nevent: hello\ndata:\n\n"
    try:
        async for news in changes.listen():
            yield "event: change\ndata:\n\n" if news else ": alive\n\n"
    except TooManyListeners:
        return

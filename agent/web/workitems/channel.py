"""The event channel (PS3.18 section 8.10): a subscriber's events over a WebSocket, as they come."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import structlog
from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from db.engine import reading
from db.models import WorkitemEvent
from db.queries import workitems as rows
from dicom_nodes import ups

LOOK_S = 0.25
_BATCH = 50
_POLICY_VIOLATION = 1008

log = structlog.get_logger(__name__)


async def serve(socket: WebSocket, ae_title: str, sessions: sessionmaker[Session]) -> None:
    """Send events until the subscriber hangs up; each is dropped from the record once sent."""
    if not _same_site(socket):
        await socket.close(_POLICY_VIOLATION)
        return
    await socket.accept()
    log.info("event_channel_opened", calling_ae=ae_title)
    listener = asyncio.create_task(_until_closed(socket))
    try:
        while not listener.done():
            sent = await _send_waiting(socket, ae_title, sessions)
            if not sent:
                await asyncio.wait({listener}, timeout=LOOK_S)
    except (WebSocketDisconnect, RuntimeError):
        pass  # gone in the middle of a message: what was not dropped is sent next time
    finally:
        listener.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listener
        log.info("event_channel_closed", calling_ae=ae_title)


async def _send_waiting(socket: WebSocket, ae_title: str, sessions: sessionmaker[Session]) -> int:
    waiting = await run_in_threadpool(_waiting, sessions, ae_title)
    for event in waiting:
        if socket.application_state is not WebSocketState.CONNECTED:
            return 0
        await socket.send_text(json.dumps(message(event)))
    if waiting:
        await run_in_threadpool(_drop, sessions, [event.id for event in waiting])
    return len(waiting)


def message(event: WorkitemEvent) -> dict[str, Any]:
    """The event information with the elements of the command (PS3.18 8.10.4)."""
    return {
        "00000002": {"vr": "UI", "Value": [ups.EVENT]},
        "00000110": {"vr": "US", "Value": [event.id % 65536]},
        "00001000": {"vr": "UI", "Value": [event.workitem_uid]},
        "00001002": {"vr": "US", "Value": [event.type]},
        **json.loads(event.content),
    }


async def _until_closed(socket: WebSocket) -> None:
    """Whatever the subscriber sends is not listened to; its goodbye is."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _waiting(sessions: sessionmaker[Session], ae_title: str) -> list[WorkitemEvent]:
    with reading(sessions) as session:
        return rows.events_of(session, ae_title, _BATCH)


def _drop(sessions: sessionmaker[Session], ids: list[int]) -> None:
    with sessions.begin() as session:
        rows.told(session, ids)


def _same_site(socket: WebSocket) -> bool:
    """A page of another site must not listen in a reader's browser."""
    origin = socket.headers.get("origin")
    return origin is None or origin.partition("://")[2] == socket.headers.get("host")

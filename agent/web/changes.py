"""Tells open pages that something changed: one look at the record for all of them.

The record may be changed by any room, by another process (the command line) or by another page, so
it is the record that is asked, four times a second while anybody listens. What is sent is only that
there is news; the page then fetches what it shows, so that filters and rights stay where they are.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Hashable

import structlog
from sqlalchemy.exc import SQLAlchemyError

EVERY_S = 0.25
HEARTBEAT_S = 15.0
MAX_LISTENERS = 200

log = structlog.get_logger(__name__)


class TooManyListeners(Exception):
    """More pages are open than we serve at a time; they ask from time to time instead."""


class Changes:
    """Watches a stamp of the record in a thread of its own, as long as anybody listens.

    Args:
        look: reads the stamp; it differs whenever there is something new to show.
    """

    def __init__(self, look: Callable[[], Hashable], every_s: float = EVERY_S) -> None:
        self._look = look
        self._every_s = every_s
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._listeners: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._watching = False

    async def listen(self, heartbeat_s: float = HEARTBEAT_S) -> AsyncIterator[bool]:
        """True for each change (several at once count as one), False as a sign of life.

        Raises:
            TooManyListeners: at the first step.
        """
        news = asyncio.Event()
        self._add(news, asyncio.get_running_loop())
        try:
            while not self._closed.is_set():
                try:
                    await asyncio.wait_for(news.wait(), heartbeat_s)
                except TimeoutError:
                    yield False
                    continue
                news.clear()
                if not self._closed.is_set():
                    yield True
        finally:
            with self._lock:
                self._listeners.pop(news, None)

    @property
    def full(self) -> bool:
        """Whether one more would be too many."""
        return len(self._listeners) >= MAX_LISTENERS

    def close(self) -> None:
        """End every stream, so that a server that stops need not wait for its readers."""
        self._closed.set()
        self._tell()

    def _add(self, news: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if self.full:
                raise TooManyListeners
            self._listeners[news] = loop
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="web-changes", daemon=True).start()

    def _watch(self) -> None:
        seen: Hashable = None
        while not self._closed.is_set():
            try:
                now = self._look()
            except SQLAlchemyError as error:  # the database is away: the pages say so themselves
                log.warning("changes_not_seen", error_type=type(error).__name__)
                now = seen
            if now != seen and seen is not None:
                self._tell()
            seen = now
            self._closed.wait(self._every_s)
            with self._lock:
                if not self._listeners:
                    self._watching = False
                    return

    def _tell(self) -> None:
        with self._lock:
            listeners = list(self._listeners.items())
        for news, loop in listeners:
            if not loop.is_closed():
                loop.call_soon_threadsafe(news.set)

"""Group commit: whoever comes while a commit runs shares the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Turns many threads' commits into few.

    The first thread to come commits at once, in its own thread: a single association pays no
    hand-over. The others wait; one of them then commits for all that wait.
    """

    def __init__(self, commit: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        """Take the function that makes a batch durable and returns one result for each item."""
        self._commit = commit
        self._lock = threading.Lock()
        self._waiting: list[_Ticket[Item, Result]] = []
        self._busy = False

    def submit(self, item: Item) -> Result:
        """Return when `item` is durable; raises what committing it raised."""
        ticket: _Ticket[Item, Result] = _Ticket(item)
        with self._lock:
            self._waiting.append(ticket)
            leads, self._busy = not self._busy, True
        if not leads:
            ticket.gate.acquire()
        if not ticket.done:
            self._lead(ticket)
        if ticket.error is not None:
            raise ticket.error
        return ticket.results[0]

    def _lead(self, mine: _Ticket[Item, Result]) -> None:
        with self._lock:
            batch, self._waiting = self._waiting, []
        try:
            self._settle(batch)
        finally:
            with self._lock:
                heir = self._waiting[0] if self._waiting else None
                self._busy = heir is not None
            for ticket in batch:
                ticket.done = True
                if ticket is not mine:
                    ticket.gate.release()
            if heir is not None:
                heir.gate.release()

    def _settle(self, batch: Sequence[_Ticket[Item, Result]]) -> None:
        """Commit a batch; if that fails, each alone, so that one bad item fails only itself."""
        try:
            results = self._commit([ticket.item for ticket in batch])
        except Exception as error:  # noqa: BLE001
            if len(batch) == 1:
                batch[0].error = error
                return
            for ticket in batch:
                self._settle([ticket])
            return
        for ticket, result in zip(batch, results, strict=True):
            ticket.results.append(result)


class _Ticket(Generic[Item, Result]):
    """One waiting thread's item, its gate and what came of it."""

    __slots__ = ("done", "error", "gate", "item", "results")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.gate = threading.Lock()
        self.gate.acquire()
        self.done = False
        self.error: Exception | None = None
        self.results: list[Result] = []

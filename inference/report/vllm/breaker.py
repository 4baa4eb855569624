"""When a replica that failed is left alone and when it is tried again; time is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Breaker:
    """Closed, open until a time, or half open: one request finds out.

    Attributes:
        after: failures in a row that open it.
        for_s: how long it stays open.
    """

    after: int = 3
    for_s: float = 30.0
    _failures: int = 0
    _open_until: float | None = None
    _trying: bool = False

    def allows(self, now: float) -> bool:
        """Whether a request may be made."""
        if self._open_until is None:
            return True
        return now >= self._open_until and not self._trying

    def opens_at(self) -> float | None:
        """When it may be tried again; None while it is closed."""
        return self._open_until

    def begin(self) -> None:
        """A request is made; the first after a break is the trial."""
        self._trying = self._open_until is not None

    def succeeded(self) -> None:
        """The replica answered as it should."""
        self._failures, self._open_until, self._trying = 0, None, False

    def failed(self, now: float, *, at_once: bool = False) -> bool:
        """The replica failed; returns whether this opened the breaker.

        Args:
            now: monotonic time.
            at_once: do not count, open: what it says cannot be believed.
        """
        self._failures += 1
        trial, self._trying = self._trying, False
        if not (at_once or trial or self._failures >= self.after):
            return False
        self._open_until = now + self.for_s
        return True

    def ended(self) -> None:
        """A request ended that says nothing about the replica's health."""
        self._trying = False

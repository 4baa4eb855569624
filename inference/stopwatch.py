"""How long the steps of one analysis took."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds of each step, in the order they ended."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """End a step and give it its name."""
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 3)
        self._last = now

    def restart(self) -> None:
        """Leave out what passed since the last step: it is not this analysis' own."""
        self._last = time.monotonic()

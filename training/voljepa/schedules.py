"""Learning rate and teacher momentum over the steps of a run, as published."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CosineWarmup:
    """Linear warm-up, then a cosine; the rate at optimizer step k is `at(k)`.

    Attributes:
        peak, start, final: learning rates at the end of the warm-up, at step 0, at the end.
        steps: optimizer steps of the whole run.
        warm_up: share of the steps, below 1, or their number.
        cycles: half = falls once; 1.0 falls to `final` at mid-run and rises again (the published
            instruction tuning does).
        stretch: warm-up and length are multiplied by it (published: 1.25), so that training stops
            before the rate reaches its end.
    """

    peak: float
    start: float
    final: float
    steps: int
    warm_up: float = 0.1
    cycles: float = 0.5
    stretch: float = 1.0

    def at(self, step: int) -> float:
        """The rate of optimizer step `step`, counted from 0."""
        warm, total = self._lengths()
        if step < warm:
            return self.start + (self.peak - self.start) * step / max(1, warm)
        progress = (step - warm) / max(1, total - warm)
        wave = max(0.0, 0.5 * (1.0 + math.cos(math.pi * self.cycles * 2.0 * progress)))
        return self.final + (self.peak - self.final) * wave

    def _lengths(self) -> tuple[int, int]:
        warm = int(self.warm_up * self.steps) if self.warm_up < 1 else int(self.warm_up)
        if self.stretch > 1.0:
            return int(warm * self.stretch), int(self.steps * self.stretch)
        return warm, self.steps


@dataclass(frozen=True)
class Momentum:
    """Share of its old weights that the teacher keeps, rising linearly.

    Attributes:
        start, end: at the first and the last step.
        steps: optimizer steps of the run.
        stretch: as in `CosineWarmup`.
    """

    steps: int
    start: float = 0.994
    end: float = 1.0
    stretch: float = 1.0

    def at(self, step: int) -> float:
        """The momentum of step `step`, counted from 0."""
        total = int(self.steps * self.stretch)
        return self.start + step * (self.end - self.start) / max(1, total - 1)

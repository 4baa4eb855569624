"""The sweeps: one list of (name, every, function) on APScheduler; the record holds all state."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from agent import faults

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Sweep:
    """One periodic piece of housekeeping; it must be safe to repeat and to miss."""

    name: str
    every_s: float
    run: Callable[[], object]


class Schedule:
    """Runs the sweeps, one at a time each, until stopped."""

    def __init__(self, sweeps: Sequence[Sweep]) -> None:
        self._scheduler = BackgroundScheduler(
            timezone=dt.UTC,
            executors={"default": ThreadPoolExecutor(max_workers=max(2, len(sweeps)))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        for sweep in sweeps:
            self._scheduler.add_job(
                _guarded(sweep), "interval", seconds=sweep.every_s, id=sweep.name, name=sweep.name
            )

    @property
    def names(self) -> list[str]:
        """The sweeps by name."""
        return [job.id for job in self._scheduler.get_jobs()]

    def start(self) -> None:
        """Begin sweeping."""
        self._scheduler.start()

    def stop(self) -> None:
        """Let running sweeps finish, start no more."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)


def _guarded(sweep: Sweep) -> Callable[[], None]:
    def run() -> None:
        try:
            sweep.run()
        except Exception as error:  # noqa: BLE001  a sweep that fails is tried again at its time
            log.error("sweep_failed", sweep=sweep.name, why=faults.describe(error))

    return run

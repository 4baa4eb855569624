"""Whether a failed attempt is made again, and when: pure, so that every case can be tested."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass

from agent.settings import DeliverySettings


@dataclass(frozen=True)
class RetryAt:
    """Try again, not before `at`."""

    at: dt.datetime


@dataclass(frozen=True)
class GiveUp:
    """Do not try again; a person has to look."""

    reason: str


def decide(
    error: BaseException,
    *,
    attempts: int,
    age: dt.timedelta,
    now: dt.datetime,
    settings: DeliverySettings,
    spread: Callable[[], float] = random.random,
) -> RetryAt | GiveUp:
    """Judge a failed attempt.

    Args:
        error: what happened; errors without a `permanent` attribute count as transient.
        attempts: how many were made, this one included.
        age: how long the work has been waiting.
        now: the time of the failure.
        settings: first delay, factor, ceiling, jitter and the age at which we give up.
        spread: source of jitter, uniform in [0, 1).
    """
    if getattr(error, "permanent", False):
        return GiveUp("refused for good")
    limit = dt.timedelta(hours=settings.dead_after_hours)
    if age >= limit:
        return GiveUp(f"not taken within {settings.dead_after_hours:g} h")
    wait = dt.timedelta(seconds=delay_s(attempts, settings, spread()))
    # the last attempt is made when the time is over, not up to one long delay later
    return RetryAt(min(now + wait, now + (limit - age)))


def delay_s(attempts: int, settings: DeliverySettings, spread: float) -> float:
    """Exponential backoff with jitter: ``first * backoff^(attempts - 1)``, at most the ceiling.

    Jitter shortens a delay by up to the configured fraction, so that the ceiling holds and
    deliveries that failed together do not come back together.
    """
    # a float power overflows long before the ceiling stops mattering
    exponent = min(max(attempts, 1) - 1, 64)
    full = min(settings.first_retry_s * settings.backoff**exponent, settings.max_retry_s)
    return full * (1.0 - settings.jitter * spread)

"""Retry decisions: permanent stops, transient waits longer each time, and everything ends."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from agent import retry
from agent.errors import DeliveryError, IdentityChanged
from agent.retry import GiveUp, RetryAt
from agent.settings import DeliverySettings

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
SETTINGS = DeliverySettings(
    first_retry_s=5, backoff=2, max_retry_s=900, jitter=0.2, dead_after_hours=72
)
BUSY = DeliveryError("PACS: out of resources", permanent=False)


def decide(
    error: BaseException = BUSY, *, attempts: int = 1, age_h: float = 0, spread: float = 0.0
) -> RetryAt | GiveUp:
    """Decide with defaults."""
    age = dt.timedelta(hours=age_h)
    return retry.decide(
        error, attempts=attempts, age=age, now=NOW, settings=SETTINGS, spread=lambda: spread
    )


def test_a_permanent_refusal_is_not_repeated() -> None:
    """Neither a refusal nor a changed identity gets better by itself."""
    assert isinstance(decide(DeliveryError("no", permanent=True)), GiveUp)
    assert isinstance(decide(IdentityChanged("patient differs")), GiveUp)


def test_delays_grow_up_to_the_ceiling() -> None:
    """5, 10, 20 ... 900 s without jitter."""
    delays = []
    for attempts in range(1, 11):
        outcome = decide(attempts=attempts)
        assert isinstance(outcome, RetryAt)
        delays.append((outcome.at - NOW).total_seconds())
    assert delays == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]


def test_an_error_nobody_foresaw_is_tried_again() -> None:
    """A bug or a full disk must not lose a result at the first attempt."""
    assert isinstance(decide(KeyError("x")), RetryAt)


def test_too_old_is_given_up_with_the_configured_age() -> None:
    """The reason says how long we tried."""
    assert decide(age_h=72) == GiveUp("not taken within 72 h")


def test_the_last_attempt_is_made_when_the_time_is_over() -> None:
    """A long delay does not postpone the alarm."""
    outcome = decide(attempts=20, age_h=71.9)
    assert isinstance(outcome, RetryAt)
    assert outcome.at - NOW == dt.timedelta(hours=72) - dt.timedelta(hours=71.9)


@given(attempts=st.integers(0, 100_000), spread=st.floats(0, 1, exclude_max=True))
def test_jitter_shortens_by_at_most_its_fraction(attempts: int, spread: float) -> None:
    """Every delay lies between (1 - jitter) of the full delay and the ceiling."""
    delay = retry.delay_s(attempts, SETTINGS, spread)
    full = retry.delay_s(attempts, SETTINGS, 0.0)
    assert 0.8 * full <= delay <= full <= 900

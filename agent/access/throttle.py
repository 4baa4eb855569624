"""Failed logins are counted per account and per address; too many have to wait."""

from __future__ import annotations

import collections
import datetime as dt
import threading

from agent.access.errors import Throttled
from agent.settings_access import PasswordSettings

MAX_KEYS = 10_000
"""Least recently used counters are forgotten beyond this, so that guessers cannot fill memory."""

Key = tuple[str, str]


class Throttle:
    """Remembers failures of the last `failure_window_s`; a restart forgets them."""

    def __init__(self, settings: PasswordSettings) -> None:
        self._limits = {
            "account": settings.failures_per_account,
            "address": settings.failures_per_address,
        }
        self._window = dt.timedelta(seconds=settings.failure_window_s)
        self._failures: collections.OrderedDict[Key, collections.deque[dt.datetime]]
        self._failures = collections.OrderedDict()
        self._lock = threading.Lock()

    def begin(self, name: str, address: str, now: dt.datetime) -> None:
        """Count an attempt as failed until `succeeded`: guesses sent at once count all.

        Raises:
            Throttled: account or address failed too often.
        """
        with self._lock:
            for key in _keys(name, address):
                failures = self._recent(key, now)
                if len(failures) >= self._limits[key[0]]:
                    raise Throttled((failures[0] + self._window - now).total_seconds())
            for key in _keys(name, address):
                self._failures.setdefault(key, collections.deque()).append(now)
                self._failures.move_to_end(key)
            while len(self._failures) > MAX_KEYS:
                self._failures.popitem(last=False)

    def succeeded(self, name: str, address: str) -> None:
        """Forget the account's failures, and this attempt at the address."""
        with self._lock:
            account, place = _keys(name, address)
            self._failures.pop(account, None)
            failures = self._failures.get(place)
            if failures:
                failures.pop()

    def _recent(self, key: Key, now: dt.datetime) -> collections.deque[dt.datetime]:
        failures = self._failures.get(key, collections.deque())
        while failures and failures[0] <= now - self._window:
            failures.popleft()
        return failures


def _keys(name: str, address: str) -> tuple[Key, Key]:
    return ("account", name.lower()), ("address", address)

"""Passwords: Argon2id, and the same time for names that do not exist."""

from __future__ import annotations

import functools

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from agent.access.errors import AccessError
from agent.settings_access import PasswordSettings

MAX_LENGTH = 1024


class Passwords:
    """Hash and check with the configured cost."""

    def __init__(self, settings: PasswordSettings) -> None:
        self._settings = settings
        self._hasher = PasswordHasher(
            time_cost=settings.time_cost,
            memory_cost=settings.memory_kib,
            parallelism=settings.parallelism,
        )

    def hash(self, password: str) -> str:
        """What is stored.

        Raises:
            AccessError: too short or too long.
        """
        if len(password) < self._settings.min_length:
            raise AccessError(f"a password has at least {self._settings.min_length} characters")
        if len(password) > MAX_LENGTH:
            raise AccessError(f"a password has at most {MAX_LENGTH} characters")
        return self._hasher.hash(password)

    def matches(self, stored: str | None, password: str) -> bool:
        """Whether the password is the stored one; an unknown name (None) takes as long."""
        try:
            fits = self._hasher.verify(stored or self._nobody, password[:MAX_LENGTH])
        except (VerificationError, InvalidHashError):
            return False
        return fits and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether it was hashed with another cost than today's."""
        return self._hasher.check_needs_rehash(stored)

    @functools.cached_property
    def _nobody(self) -> str:
        return self._hasher.hash("nobody has this password")

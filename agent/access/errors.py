"""Errors of access.

AgentError
└── AccessError (permanent)
    ├── LoginRefused   name, password or group does not fit; says no more than that
    ├── Throttled      too many failures; try again later
    └── UnsafeBinding  the page would be served to others without login or TLS
"""

from __future__ import annotations

from agent.errors import AgentError


class AccessError(AgentError):
    """An account, token or login cannot be what was asked for."""

    permanent = True


class LoginRefused(AccessError):
    """Nobody comes in; the words tell a stranger nothing."""


class Throttled(AccessError):
    """Too many failed logins."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many failed logins; try again in {max(1, round(wait_s / 60))} min")
        self.wait_s = wait_s


class UnsafeBinding(AccessError):
    """The configured address would show patients to strangers."""

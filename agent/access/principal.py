"""Who asks, and in which role. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

ANONYMOUS = "radiologist"
"""Name of whoever uses the page where nobody logs in."""


class Role(enum.StrEnum):
    """What somebody may do; `ALLOWED` says what each includes."""

    #: look
    VIEWER = "viewer"
    #: look, give feedback, change a priority, try again
    RADIOLOGIST = "radiologist"
    #: everything
    ADMINISTRATOR = "administrator"
    #: machines: look, store, work items
    SERVICE = "service"


#: Required role -> roles that fulfil it.
ALLOWED: dict[Role, frozenset[Role]] = {
    Role.VIEWER: frozenset(Role),
    Role.RADIOLOGIST: frozenset({Role.RADIOLOGIST, Role.ADMINISTRATOR}),
    Role.ADMINISTRATOR: frozenset({Role.ADMINISTRATOR}),
    Role.SERVICE: frozenset({Role.SERVICE, Role.ADMINISTRATOR}),
}


class Via(enum.StrEnum):
    """How we know who it is."""

    #: nobody logs in here
    OPEN = "open"
    #: a trusted proxy says so
    PROXY = "proxy"
    #: session cookie: a browser, so changes need a CSRF token
    SESSION = "session"
    #: bearer token: a machine
    TOKEN = "token"  # noqa: S105 - not a secret


@dataclass(frozen=True)
class Principal:
    """Somebody known.

    Attributes:
        csrf_token: what a changing request of a browser must repeat; empty where none is needed.
    """

    name: str
    role: Role
    via: Via = Via.OPEN
    csrf_token: str = ""

    def may(self, required: tuple[Role, ...]) -> bool:
        """Whether the role fulfils any of the required ones."""
        return any(self.role in ALLOWED[role] for role in required)

"""Local accounts and machines' tokens: made, changed and closed by an administrator."""

from __future__ import annotations

import datetime as dt
import re

from sqlalchemy.orm import Session

from agent.access import secrets
from agent.access.errors import AccessError
from agent.access.passwords import Passwords
from agent.access.principal import Role
from agent.audit.kinds import Kind, Occurrence
from agent.audit.record import record
from db.models import AccessToken, Account
from db.queries import access as queries

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
OPERATOR = "operator"
"""Who acts on the command line: whoever may read the configuration and the database."""


def add(
    session: Session, passwords: Passwords, name: str, role: Role, password: str, now: dt.datetime
) -> Account:
    """Make an account.

    Raises:
        AccessError: the name is taken or odd, the password too short, the role a machine's.
    """
    _check_name(name)
    if role is Role.SERVICE:
        raise AccessError("service is a role of tokens: worklist-agent accounts token NAME")
    if queries.account(session, name):
        raise AccessError(f"there is an account {name!r} already; see: accounts password")
    account = Account(
        name=name,
        password_hash=passwords.hash(password),
        role=role,
        created_at=now,
        password_changed_at=now,
    )
    session.add(account)
    _audit(session, f"account {name} added, role {role}", now)
    return account


def set_password(
    session: Session, passwords: Passwords, name: str, password: str, now: dt.datetime
) -> None:
    """Replace the password; ends the account's sessions.

    Raises:
        AccessError: no such account, or the password is too short.
    """
    account = _account(session, name)
    account.password_hash, account.password_changed_at = passwords.hash(password), now
    queries.end_sessions_of(session, account.id)
    _audit(session, f"password of {account.name} changed", now)


def set_disabled(session: Session, name: str, disabled: bool, now: dt.datetime) -> None:
    """Close (or open again) the account or the token of this name; ends its sessions.

    Raises:
        AccessError: neither an account nor a token is called so.
    """
    account, token = queries.account(session, name), queries.token_named(session, name)
    if account is None and token is None:
        raise AccessError(f"no account or token {name!r}; see: worklist-agent accounts list")
    if account:
        account.disabled = disabled
        queries.end_sessions_of(session, account.id)
    if token:
        token.disabled = disabled
    _audit(session, f"{name} {'disabled' if disabled else 'enabled'}", now)


def issue_token(session: Session, name: str, role: Role, days: float, now: dt.datetime) -> str:
    """Make a machine's token, or replace the one of this name; it is told this once only.

    Raises:
        AccessError: the name is odd, or the life is not a time.
    """
    _check_name(name)
    if not 0 < days <= 3660:
        raise AccessError("a token lives more than 0 and at most 3660 days")
    if queries.account(session, name):
        raise AccessError(f"{name!r} is a person's account; call the machine otherwise")
    secret = secrets.new_token()
    token = queries.token_named(session, name) or AccessToken(name=name)
    token.token_sha256, token.role, token.disabled = secrets.digest(secret), role, False
    token.created_at, token.expires_at = now, now + dt.timedelta(days=days)
    token.last_used_at = None
    session.add(token)
    _audit(session, f"token {name} issued, role {role}, {days:g} days", now)
    return secret


def _account(session: Session, name: str) -> Account:
    account = queries.account(session, name)
    if account is None:
        raise AccessError(f"no account {name!r}; see: worklist-agent accounts list")
    return account


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise AccessError("a name has letters, digits and . _ @ - only, at most 128")


def _audit(session: Session, detail: str, now: dt.datetime) -> None:
    record(session, Occurrence(Kind.USERS_CHANGED, OPERATOR, detail=detail), now)

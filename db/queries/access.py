"""Accounts, sessions and tokens by name or digest.

Every function takes a session and leaves the commit to its caller.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import AccessSession, AccessToken, Account


def account(session: Session, name: str) -> Account | None:
    """The account of this name; names differ by more than case."""
    query = sa.select(Account).where(sa.func.lower(Account.name) == name.lower())
    return session.execute(query).scalars().first()


def accounts(session: Session) -> Sequence[Account]:
    """All of them, by name."""
    return session.execute(sa.select(Account).order_by(Account.name)).scalars().all()


def tokens(session: Session) -> Sequence[AccessToken]:
    """All of them, by name."""
    return session.execute(sa.select(AccessToken).order_by(AccessToken.name)).scalars().all()


def token_named(session: Session, name: str) -> AccessToken | None:
    """The token of this name, whatever its state."""
    query = sa.select(AccessToken).where(AccessToken.name == name)
    return session.execute(query).scalar_one_or_none()


def live_token(session: Session, digest: str, now: dt.datetime) -> AccessToken | None:
    """The token of this digest, if it is in force."""
    query = sa.select(AccessToken).where(
        AccessToken.token_sha256 == digest,
        AccessToken.disabled.is_(False),
        AccessToken.expires_at > now,
    )
    return session.execute(query).scalar_one_or_none()


def live_session(
    session: Session, digest: str, now: dt.datetime, idle: dt.timedelta
) -> tuple[AccessSession, Account | None] | None:
    """The session of this digest if neither it nor its account has ended, and the account."""
    query = (
        sa.select(AccessSession, Account)
        .outerjoin(Account, Account.id == AccessSession.account_id)
        .where(
            AccessSession.token_sha256 == digest,
            AccessSession.expires_at > now,
            AccessSession.last_seen_at > now - idle,
        )
    )
    row = session.execute(query).first()
    if row is None:
        return None
    found, owner = row
    if found.account_id is not None and (owner is None or owner.disabled):
        return None
    return found, owner


def seen(session: Session, session_id: int, now: dt.datetime) -> None:
    """The session was used."""
    session.execute(
        sa.update(AccessSession).where(AccessSession.id == session_id).values(last_seen_at=now)
    )


def end_session(session: Session, digest: str) -> None:
    """Log out."""
    session.execute(sa.delete(AccessSession).where(AccessSession.token_sha256 == digest))


def end_sessions_of(session: Session, account_id: int) -> None:
    """Log an account out everywhere."""
    session.execute(sa.delete(AccessSession).where(AccessSession.account_id == account_id))


def end_overdue(session: Session, now: dt.datetime, idle: dt.timedelta) -> int:
    """Remove sessions that are over; returns how many."""
    over = sa.or_(AccessSession.expires_at <= now, AccessSession.last_seen_at <= now - idle)
    result = session.execute(sa.delete(AccessSession).where(over))
    return int(getattr(result, "rowcount", 0))

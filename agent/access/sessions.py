"""Browsers that are logged in: random cookie, digest in the record, idle and absolute end."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy.orm import Session, sessionmaker

from agent.access import secrets
from agent.access.errors import LoginRefused
from agent.access.passwords import Passwords
from agent.access.principal import Principal, Role, Via
from agent.access.throttle import Throttle
from agent.clock import Clock
from agent.settings_access import SessionSettings
from db.engine import reading
from db.models import AccessSession, Account
from db.queries import access as queries

TOUCH_EVERY = dt.timedelta(minutes=1)
"""`last_seen_at` is written no more often than this."""
REFUSED = "name or password is wrong, or the account is disabled"


@dataclass(frozen=True)
class Sessions:
    """Starts, finds and ends sessions; finds tokens."""

    sessions: sessionmaker[Session]
    settings: SessionSettings
    passwords: Passwords
    throttle: Throttle
    clock: Clock

    def log_in(self, name: str, password: str, address: str) -> tuple[str, Principal]:
        """A new session of a local account: its cookie and who it is.

        Raises:
            LoginRefused, Throttled: nobody comes in.
        """
        now = self.clock()
        self.throttle.begin(name, address, now)
        with reading(self.sessions) as session:
            account = queries.account(session, name)
        # Outside of a transaction: hashing takes long on purpose.
        fits = self.passwords.matches(account.password_hash if account else None, password)
        if account is None or not fits or account.disabled:
            raise LoginRefused(REFUSED)
        self.throttle.succeeded(name, address)
        self._greet(account, password, now)
        return self.start(account.name, Role(account.role), address, account.id)

    def start(
        self, name: str, role: Role, address: str, account_id: int | None = None
    ) -> tuple[str, Principal]:
        """A new session of somebody who proved who they are; never an old cookie again."""
        now = self.clock()
        secret = secrets.new_secret()
        row = AccessSession(
            token_sha256=secrets.digest(secret),
            account_id=account_id,
            name=name,
            role=role,
            address=address[:64],
            created_at=now,
            last_seen_at=now,
            expires_at=now + dt.timedelta(hours=self.settings.absolute_hours),
        )
        with self.sessions.begin() as session:
            queries.end_overdue(session, now, self._idle)
            session.add(row)
        return secret, Principal(name, role, Via.SESSION, secrets.csrf_token(secret))

    def find(self, secret: str, *, by_hand: bool) -> Principal | None:
        """Whose session this cookie is; `by_hand` keeps an idle session alive."""
        now = self.clock()
        with reading(self.sessions) as session:
            found = queries.live_session(session, secrets.digest(secret), now, self._idle)
        if found is None:
            return None
        row, account = found
        if by_hand and row.last_seen_at < now - TOUCH_EVERY:
            with self.sessions.begin() as session:
                queries.seen(session, row.id, now)
        # Of a local account the role of today, not that of the login.
        role = Role(account.role if account else row.role)
        return Principal(row.name, role, Via.SESSION, secrets.csrf_token(secret))

    def find_token(self, secret: str) -> Principal | None:
        """Whose bearer token this is."""
        now = self.clock()
        with reading(self.sessions) as session:
            token = queries.live_token(session, secrets.digest(secret), now)
        if token is None:
            return None
        if token.last_used_at is None or token.last_used_at < now - TOUCH_EVERY:
            with self.sessions.begin() as session:
                session.merge(token).last_used_at = now
        return Principal(token.name, Role(token.role), Via.TOKEN)

    def end(self, secret: str) -> None:
        """Log out."""
        with self.sessions.begin() as session:
            queries.end_session(session, secrets.digest(secret))

    @property
    def _idle(self) -> dt.timedelta:
        return dt.timedelta(minutes=self.settings.idle_minutes)

    def _greet(self, account: Account, password: str, now: dt.datetime) -> None:
        """Note the login; hash again if the cost has changed."""
        with self.sessions.begin() as session:
            row = session.get_one(Account, account.id)
            row.last_login_at = now
            if self.passwords.is_outdated(row.password_hash):
                row.password_hash = self.passwords.hash(password)

"""Who may log in, who is logged in, and what everybody looked at and did."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class Account(Base):
    """A person of this installation, with a role."""

    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    password_hash: Mapped[str] = mapped_column(Text)
    """Argon2id, with its parameters and salt."""
    role: Mapped[str] = mapped_column(String(16))
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[dt.datetime]
    password_changed_at: Mapped[dt.datetime]
    last_login_at: Mapped[dt.datetime | None] = mapped_column(default=None)


class AccessSession(Base):
    """A browser that is logged in; its cookie is kept as a digest only."""

    __tablename__ = "access_session"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    account_id: Mapped[int | None] = mapped_column(index=True, default=None)
    """Local account, whose role and state count; None after single sign-on."""
    name: Mapped[str] = mapped_column(String(128))
    role: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[dt.datetime]
    last_seen_at: Mapped[dt.datetime]
    expires_at: Mapped[dt.datetime] = mapped_column(index=True)


class AccessToken(Base):
    """A machine's bearer token, kept as a digest only."""

    __tablename__ = "access_token"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[dt.datetime]
    expires_at: Mapped[dt.datetime]
    last_used_at: Mapped[dt.datetime | None] = mapped_column(default=None)


class AuditEvent(Base):
    """Who looked at or did what, when, from where, and whether it succeeded.

    No key ties it to the study: the trail outlives the images.
    """

    __tablename__ = "audit_event"
    __table_args__ = (Index("ix_audit_event_waiting", "sent_at", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[dt.datetime] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(32))
    """A word of `agent.audit.kinds.Kind`."""
    who: Mapped[str] = mapped_column(String(128))
    role: Mapped[str] = mapped_column(String(16), default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    study_uid: Mapped[str] = mapped_column(String(128), default="", index=True)
    study_key: Mapped[str] = mapped_column(String(32), default="")
    patient_id: Mapped[str] = mapped_column(Text, default="")
    """Needed by the DICOM audit message; never a name."""
    detail: Mapped[str] = mapped_column(Text, default="")
    """Route template or our own words; nothing a user or a device sent."""
    outcome: Mapped[int] = mapped_column(default=0)
    """EventOutcomeIndicator: 0 success, 4 minor, 8 serious, 12 major failure."""
    sent_at: Mapped[dt.datetime | None] = mapped_column(default=None)
    """When the audit repository took it; None while it waits."""

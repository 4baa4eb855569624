"""What others say about arrival: performed steps, availability notices, storage commitments.

Kept whether or not the study is known yet, and joined to it by Study Instance UID. None of the
tables holds who the patient is.
"""

from __future__ import annotations

import datetime as dt

from sqlalchemy import Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class PerformedStep(Base):
    """One modality performed procedure step, one row per study it belongs to."""

    __tablename__ = "performed_step"

    id: Mapped[int] = mapped_column(primary_key=True)
    sop_uid: Mapped[str] = mapped_column(String(128))
    study_uid: Mapped[str] = mapped_column(String(128), default="", index=True)
    """Empty while only an update is known, which does not say the study."""
    status: Mapped[str] = mapped_column(String(16))
    """``IN PROGRESS``, ``COMPLETED`` or ``DISCONTINUED``."""
    created: Mapped[bool] = mapped_column(default=True)
    """False while its N-CREATE has not come (messages overtake each other)."""
    calling_ae: Mapped[str] = mapped_column(String(64), default="")
    references: Mapped[str] = mapped_column(Text, default="[]")
    """JSON: ``[[series uid, [sop instance uid, ...]], ...]``."""
    received_at: Mapped[dt.datetime]
    changed_at: Mapped[dt.datetime]

    __table_args__ = (UniqueConstraint("sop_uid", "study_uid"),)


class AvailabilityNotice(Base):
    """One Instance Availability Notification."""

    __tablename__ = "availability_notice"

    id: Mapped[int] = mapped_column(primary_key=True)
    sop_uid: Mapped[str] = mapped_column(String(128), unique=True)
    study_uid: Mapped[str] = mapped_column(String(128), index=True)
    calling_ae: Mapped[str] = mapped_column(String(64), default="")
    references: Mapped[str] = mapped_column(Text, default="[]")
    """JSON as in `PerformedStep`; unavailable instances are left out."""
    received_at: Mapped[dt.datetime]


class CommitmentTransaction(Base):
    """One storage commitment transaction, asked by us or asked of us."""

    __tablename__ = "commitment_transaction"

    id: Mapped[int] = mapped_column(primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(String(128))
    role: Mapped[str] = mapped_column(String(8))
    """``scu``: we asked a destination; ``scp``: a peer asked us."""
    peer: Mapped[str] = mapped_column(String(64))
    """Name of the destination we asked, or AE title of the peer that asked us."""
    references: Mapped[str] = mapped_column(Text)
    """JSON: ``[[sop class uid, sop instance uid], ...]``."""
    state: Mapped[str] = mapped_column(String(16))
    """``open``; ``reported``: the report came or was taken; ``dead``: the peer never took it."""
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[dt.datetime]
    last_error: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[dt.datetime]
    closed_at: Mapped[dt.datetime | None] = mapped_column(default=None)

    __table_args__ = (
        UniqueConstraint("transaction_uid", "role", "peer"),
        Index("ix_commitment_transaction_due", "role", "state", "next_attempt_at"),
    )

"""The outbox: one row per object (or priority update) and destination."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.states import DeliveryState


class Delivery(Base):
    """Sent after its transaction, repeatable: the destination sees one object however often."""

    __tablename__ = "delivery"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    analysis_id: Mapped[str] = mapped_column(ForeignKey("analysis.id"), index=True)
    destination: Mapped[str] = mapped_column(String(64))
    """Name of a ``[[destinations]]`` entry."""
    kind: Mapped[str] = mapped_column(String(16))
    """An object (``sr``, ``seg``, ``pm``, ``sc``) or a message (``priority``, ``report``)."""
    subject: Mapped[str] = mapped_column(String(128))
    """SOP Instance UID of the object, or the control id of the message."""
    identity: Mapped[str] = mapped_column(Text, default="", server_default="")
    """Of a message: whose study it was when it was put in, as JSON; objects carry their own."""
    result_id: Mapped[int | None] = mapped_column(ForeignKey("result.id"), default=None)
    state: Mapped[str] = mapped_column(String(16), default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[dt.datetime]
    lease_owner: Mapped[str | None] = mapped_column(String(64), default=None)
    lease_until: Mapped[dt.datetime | None] = mapped_column(default=None)
    last_error: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[dt.datetime]
    sent_at: Mapped[dt.datetime | None] = mapped_column(default=None)
    """When the destination answered success (the last time, if it had to be sent again)."""
    committed_at: Mapped[dt.datetime | None] = mapped_column(default=None)
    """When it committed itself to keep the object; None without storage commitment."""
    seen_at: Mapped[dt.datetime | None] = mapped_column(default=None)
    """When it was read back under the right identity; None without read-back."""
    proof_attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    """Times commitment or read-back were asked for since it was sent."""
    delivered_at: Mapped[dt.datetime | None] = mapped_column(default=None)

    __table_args__ = (
        UniqueConstraint("destination", "subject"),
        Index("ix_delivery_claim", "state", "next_attempt_at"),
    )

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
    """``sr``, ``seg``, ``pm``, ``sc`` or ``priority``."""
    subject: Mapped[str] = mapped_column(String(128))
    """SOP Instance UID of the object, or the message control id of a priority update."""
    result_id: Mapped[int | None] = mapped_column(ForeignKey("result.id"), default=None)
    state: Mapped[str] = mapped_column(String(16), default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[dt.datetime]
    lease_owner: Mapped[str | None] = mapped_column(String(64), default=None)
    lease_until: Mapped[dt.datetime | None] = mapped_column(default=None)
    last_error: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[dt.datetime]
    delivered_at: Mapped[dt.datetime | None] = mapped_column(default=None)

    __table_args__ = (
        UniqueConstraint("destination", "subject"),
        Index("ix_delivery_claim", "state", "next_attempt_at"),
    )

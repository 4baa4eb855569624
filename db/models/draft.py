"""The drafted report of one study revision, and the reasoning model's opinion of its urgency."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.states import DraftState


class Draft(Base):
    """Made with the result objects from our template; a language model may replace it later."""

    __tablename__ = "draft"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    revision: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default=DraftState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[dt.datetime]
    lease_owner: Mapped[str | None] = mapped_column(String(64), default=None)
    lease_until: Mapped[dt.datetime | None] = mapped_column(default=None)
    last_error: Mapped[str] = mapped_column(Text, default="")
    """Why there is no draft of a model (yet)."""
    draft: Mapped[str] = mapped_column(Text, default="")
    """`inference.report.draft.Draft` as JSON: the template's until a model's replaces it."""
    source: Mapped[str] = mapped_column(String(16), default="")
    """``template`` or ``model``."""
    model: Mapped[str] = mapped_column(Text, default="")
    triage: Mapped[str] = mapped_column(Text, default="")
    """`inference.report.draft.Triage` as JSON; empty when nobody was asked, or nobody answered."""
    created_at: Mapped[dt.datetime]
    drafted_at: Mapped[dt.datetime | None] = mapped_column(default=None)
    """When a language model wrote it; None for the template's."""
    triaged_at: Mapped[dt.datetime | None] = mapped_column(default=None)
    finished_at: Mapped[dt.datetime | None] = mapped_column(default=None)

    __table_args__ = (
        UniqueConstraint("study_id", "revision"),
        Index("ix_draft_claim", "state", "next_attempt_at"),
    )

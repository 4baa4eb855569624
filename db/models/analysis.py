"""What one pack said of one study revision, and the priority that follows from it."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class Analysis(Base):
    """Written in one transaction with the priority and the priority's deliveries.

    A revision has one analysis for each pack that routing named. Revision 0 is what was analysed
    before the study was complete (`provisional`).
    """

    __tablename__ = "analysis"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """Hex; result UIDs and message ids derive from it, so that a retry replaces."""
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    revision: Mapped[int]
    pack: Mapped[str] = mapped_column(Text)
    pack_version: Mapped[str] = mapped_column(Text)
    pack_digest: Mapped[str] = mapped_column(String(64))
    code_version: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    findings: Mapped[str] = mapped_column(Text)
    """`inference.findings.Findings` as JSON, grounding maps included."""
    summary: Mapped[str] = mapped_column(Text, default="", server_default="")
    """What a line of the worklist shows of them, without the maps; empty = not written yet."""
    priority: Mapped[str] = mapped_column(String(16))
    priority_score: Mapped[float]
    priority_reason: Mapped[str] = mapped_column(Text)
    votes: Mapped[str] = mapped_column(Text, default="[]")
    """What each voice of the pack (findings, own priority head) says of the urgency, as JSON
    (`agent.priority.Vote`); the level above is the most urgent of them, the order and the rules."""
    provisional: Mapped[bool] = mapped_column(default=False)
    """Of the first series of an emergency study, before the study was complete."""
    shadow: Mapped[bool] = mapped_column(default=False)
    seconds: Mapped[float] = mapped_column(default=0.0)
    created_at: Mapped[dt.datetime]

    __table_args__ = (
        UniqueConstraint("study_id", "revision", "pack"),
        Index("ix_analysis_created_at", "created_at"),
    )

"""One analysis of one study revision: which model said what, and the priority that follows."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class Analysis(Base):
    """Written in one transaction with the priority and the priority's deliveries."""

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
    priority: Mapped[str] = mapped_column(String(16))
    priority_score: Mapped[float]
    priority_reason: Mapped[str] = mapped_column(Text)
    shadow: Mapped[bool] = mapped_column(default=False)
    seconds: Mapped[float] = mapped_column(default=0.0)
    created_at: Mapped[dt.datetime]

    __table_args__ = (UniqueConstraint("study_id", "revision"),)

"""What the reader said about a result: for prospective evaluation."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class ReadingFeedback(Base):
    """Acknowledged, agreed or disagreed; later the signed report's text."""

    __tablename__ = "reading_feedback"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    at: Mapped[dt.datetime]
    who: Mapped[str] = mapped_column(Text, default="")
    kind: Mapped[str] = mapped_column(String(32))
    """``acknowledged``, ``agreed``, ``disagreed`` or ``report``."""
    text: Mapped[str] = mapped_column(Text, default="")

"""One DICOM object this agent made: the bytes are kept and re-sent, never regenerated."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class Result(Base):
    """A composed SR, SEG, parametric map or secondary capture."""

    __tablename__ = "result"

    id: Mapped[int] = mapped_column(primary_key=True)
    analysis_id: Mapped[str] = mapped_column(ForeignKey("analysis.id"), index=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    """``sr``, ``seg``, ``pm`` or ``sc``."""
    label: Mapped[str] = mapped_column(Text, default="")
    """The finding it shows; empty for study-level objects."""
    sop_class_uid: Mapped[str] = mapped_column(String(128))
    sop_uid: Mapped[str] = mapped_column(String(128), unique=True)
    series_uid: Mapped[str] = mapped_column(String(128), index=True)
    path: Mapped[str] = mapped_column(Text)
    """Relative to the results directory."""
    size_bytes: Mapped[int]
    created_at: Mapped[dt.datetime]

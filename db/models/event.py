"""What happened to a study: who, when, from which state to which, and why."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class Event(Base):
    """One line of a study's timeline; written in the transaction of the change it describes."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    at: Mapped[dt.datetime]
    who: Mapped[str] = mapped_column(String(64))
    """The room or person, e.g. ``assembly``, ``worker-1``, ``radiologist``."""
    kind: Mapped[str] = mapped_column(String(64))
    """Static snake_case name, e.g. ``state_changed``, ``priority_set``, ``delivery_failed``."""
    from_state: Mapped[str] = mapped_column(String(16), default="")
    to_state: Mapped[str] = mapped_column(String(16), default="")
    why: Mapped[str] = mapped_column(Text, default="")

"""Unified procedure steps: reading tasks, who wants to be told of them, and what is to be told."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class Workitem(Base):
    """One workitem (PS3.4 CC): ours for a study, or one that another system created here.

    What is searched and decided by has a column of its own; the columns win over `content`. No key
    ties it to the study: a workitem may name one that never comes, or that was removed.
    """

    __tablename__ = "workitem"
    __table_args__ = (Index("ix_workitem_order", "state", "rank", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(String(64), unique=True)
    """SOP Instance UID."""
    study_uid: Mapped[str] = mapped_column(String(128), default="", index=True)
    own: Mapped[bool] = mapped_column(default=False)
    """The reading task of a study that we hold: its state and the study's reading state are one."""
    number: Mapped[int] = mapped_column(default=0)
    """Which reading task of the study it is: a study that comes back to the list gets another."""
    state: Mapped[str] = mapped_column(String(16))
    """Procedure Step State (0074,1000)."""
    priority: Mapped[str] = mapped_column(String(8), default="")
    """Scheduled Procedure Step Priority (0074,1200): HIGH, MEDIUM or LOW."""
    rank: Mapped[int] = mapped_column(default=100)
    """Reading order: STAT comes before HIGH, though both are HIGH in (0074,1200)."""
    transaction_uid: Mapped[str] = mapped_column(String(128), default="")
    """The lock of a workitem in progress; known to its performer alone, never answered."""
    patient_id: Mapped[str] = mapped_column(Text, default="")
    accession_number: Mapped[str] = mapped_column(Text, default="")
    content: Mapped[str] = mapped_column(Text, default="{}")
    """All attributes as DICOM JSON (PS3.18 F)."""
    created_at: Mapped[dt.datetime]
    changed_at: Mapped[dt.datetime]


class WorkitemSubscription(Base):
    """An application entity's wish to be told of one workitem, of all, or of those that match."""

    __tablename__ = "workitem_subscription"
    __table_args__ = (UniqueConstraint("ae_title", "target"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    ae_title: Mapped[str] = mapped_column(String(16))
    target: Mapped[str] = mapped_column(String(64), index=True)
    """UID of a workitem, or one of the well-known UIDs of global subscription."""
    active: Mapped[bool] = mapped_column(default=True)
    """False: left out of a global subscription."""
    deletion_lock: Mapped[bool] = mapped_column(default=False)
    keys: Mapped[str] = mapped_column(Text, default="")
    """Matching keys of a filtered subscription, DICOM JSON."""
    up_to: Mapped[int | None] = mapped_column(default=None)
    """Suspended: workitems with a greater id are not subscribed to."""
    created_at: Mapped[dt.datetime]


class WorkitemEvent(Base):
    """One event for one subscriber, kept until it was told or is too old to be news."""

    __tablename__ = "workitem_event"
    __table_args__ = (Index("ix_workitem_event_ae_title", "ae_title", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    ae_title: Mapped[str] = mapped_column(String(16))
    workitem_uid: Mapped[str] = mapped_column(String(64))
    type: Mapped[int]
    """Event Type ID (PS3.4 table CC.2.4-1): 1 state, 2 cancel requested, 3 progress, 5 assigned."""
    content: Mapped[str] = mapped_column(Text)
    """Event information, DICOM JSON."""
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[dt.datetime]
    created_at: Mapped[dt.datetime]

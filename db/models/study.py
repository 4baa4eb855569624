"""Study, series and instance: what was received, and where the study is on its way."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Base
from db.states import ReadingState, StudyState

PACK_SEPARATOR = ", "
"""Not allowed in the name of a pack (agent/config.py)."""


class Study(Base):
    """One study (by StudyInstanceUID), its identity as received and its state."""

    __tablename__ = "study"
    __table_args__ = (
        Index("ix_study_claim", "state", "next_attempt_at"),
        Index("ix_study_worklist", "reading_state", "priority_rank"),
        Index("ix_study_place", "reading_state", "priority", "first_instance_at", "id"),
        Index(
            "ix_study_ordered_place",
            "reading_state",
            "priority",
            "ordered_priority",
            "first_instance_at",
            "id",
        ),
        Index("ix_study_patient", "patient_id", "issuer_of_patient_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_uid: Mapped[str] = mapped_column(String(128), unique=True)
    key: Mapped[str] = mapped_column(String(32), unique=True)
    """Random id that joins the study's log events; carries no patient data."""

    # identity, as in the latest instance received
    patient_id: Mapped[str] = mapped_column(Text, default="")
    issuer_of_patient_id: Mapped[str] = mapped_column(Text, default="")
    patient_name: Mapped[str] = mapped_column(Text, default="")
    patient_birth_date: Mapped[str] = mapped_column(String(16), default="")
    patient_sex: Mapped[str] = mapped_column(String(16), default="")
    accession_number: Mapped[str] = mapped_column(Text, default="")

    # what was examined
    study_date: Mapped[str] = mapped_column(String(16), default="")
    study_time: Mapped[str] = mapped_column(String(32), default="")
    description: Mapped[str] = mapped_column(Text, default="")
    modalities: Mapped[str] = mapped_column(Text, default="")
    """Modalities of the received series, sorted, joined by a backslash."""
    body_part: Mapped[str] = mapped_column(Text, default="")
    station_name: Mapped[str] = mapped_column(Text, default="")
    institution: Mapped[str] = mapped_column(Text, default="")
    patient_location: Mapped[str] = mapped_column(Text, default="")
    calling_ae: Mapped[str] = mapped_column(String(64), default="")
    ordered_priority: Mapped[str] = mapped_column(String(16), default="")
    """Requested Procedure Priority of the order, as received; empty when unknown."""

    # the flow
    state: Mapped[str] = mapped_column(String(16), default=StudyState.RECEIVING)
    revision: Mapped[int] = mapped_column(default=0)
    """0 until first assembled; late instances open revision n + 1."""
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why the study is where it is: skip reason, last error, completeness reason."""
    pack: Mapped[str] = mapped_column(Text, default="")
    """Packs that routing named, in the order they run, joined by `PACK_SEPARATOR`."""
    rule: Mapped[str] = mapped_column(Text, default="")
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[dt.datetime | None] = mapped_column(default=None)
    lease_owner: Mapped[str | None] = mapped_column(String(64), default=None)
    lease_until: Mapped[dt.datetime | None] = mapped_column(default=None)

    first_instance_at: Mapped[dt.datetime]
    last_instance_at: Mapped[dt.datetime]
    receiving_since: Mapped[dt.datetime | None] = mapped_column(default=None)
    """When late instances reopened the study; None while its first revision is received."""
    instance_count: Mapped[int] = mapped_column(default=0)
    """Distinct instances received, our own results not counted."""
    assembled_count: Mapped[int] = mapped_column(default=0)
    """Value of `instance_count` when the current revision was assembled."""
    assembled_images: Mapped[int] = mapped_column(default=0)
    """Images a model may read among them: only more of these make the study worth reading again."""
    expected_count: Mapped[int | None] = mapped_column(default=None)
    """The PACS's own count, when it was asked."""
    assembled_at: Mapped[dt.datetime | None] = mapped_column(default=None)
    done_at: Mapped[dt.datetime | None] = mapped_column(default=None)

    # the priority, committed with the analysis, before result objects exist
    priority: Mapped[str] = mapped_column(String(16), default="")
    priority_rank: Mapped[int] = mapped_column(default=100)
    """Lower is read first; 100 = no priority yet."""
    priority_score: Mapped[float] = mapped_column(default=0.0)
    priority_reason: Mapped[str] = mapped_column(Text, default="")
    reading_state: Mapped[str] = mapped_column(String(16), default=ReadingState.UNREAD)
    found: Mapped[str] = mapped_column(Text, default="", server_default="")
    """What the current revision's analyses found, case folded: the list is searched here."""
    human_level: Mapped[str] = mapped_column(String(16), default="", server_default="")
    """The level a reader set; empty = nobody did."""
    human_revision: Mapped[int] = mapped_column(default=0, server_default="0")
    """Of the images the reader said it about: later images may raise the level, not lower it."""

    series: Mapped[list[Series]] = relationship(back_populates="study")

    @property
    def packs(self) -> tuple[str, ...]:
        """The packs that read the current revision, in the order they run."""
        return tuple(name for name in self.pack.split(PACK_SEPARATOR) if name)


class Series(Base):
    """One received series."""

    __tablename__ = "series"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    series_uid: Mapped[str] = mapped_column(String(128))
    modality: Mapped[str] = mapped_column(String(16), default="")
    description: Mapped[str] = mapped_column(Text, default="")
    protocol: Mapped[str] = mapped_column(Text, default="")
    body_part: Mapped[str] = mapped_column(Text, default="")
    number: Mapped[int | None] = mapped_column(default=None)
    own_result: Mapped[bool] = mapped_column(default=False)
    """True for series this agent wrote and somebody sent back: never analysed, never counted."""
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why the series is not analysed; empty when it is eligible or not yet looked at."""

    study: Mapped[Study] = relationship(back_populates="series")
    instances: Mapped[list[Instance]] = relationship(back_populates="series")

    __table_args__ = (UniqueConstraint("study_id", "series_uid"),)


class Instance(Base):
    """One received instance version: the bytes lie in the spool before this row exists."""

    __tablename__ = "instance"

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), index=True)
    sop_uid: Mapped[str] = mapped_column(String(128))
    version: Mapped[int] = mapped_column(default=0)
    """0 for the first bytes received under this UID, n for the n-th different content."""
    sop_class_uid: Mapped[str] = mapped_column(String(128))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(128))
    number: Mapped[int | None] = mapped_column(default=None)
    path: Mapped[str] = mapped_column(Text)
    """Relative to the spool directory."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64), default=None)
    """Of the file as stored; filled on receipt or by the background digest sweep."""
    calling_ae: Mapped[str] = mapped_column(String(64), default="")
    received_at: Mapped[dt.datetime]

    series: Mapped[Series] = relationship(back_populates="instances")

    __table_args__ = (UniqueConstraint("sop_uid", "version"),)

"""What the RIS says: orders, and every HL7 message it sent, kept before it was acknowledged."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class Order(Base):
    """One imaging order, newest word wins; joined to its studies by UID or accession + patient."""

    __tablename__ = "order"
    __table_args__ = (
        UniqueConstraint(
            "accession_number", "procedure_id", "study_uid", "patient_id", "issuer_of_patient_id"
        ),
        Index("ix_order_patient", "patient_id"),
        Index("ix_order_study_uid", "study_uid"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    accession_number: Mapped[str] = mapped_column(Text, default="")
    patient_id: Mapped[str] = mapped_column(Text, default="")
    issuer_of_patient_id: Mapped[str] = mapped_column(Text, default="")
    procedure_id: Mapped[str] = mapped_column(Text, default="")
    """Requested Procedure ID; empty when the order names none."""
    study_uid: Mapped[str] = mapped_column(String(128), default="")
    placer_order: Mapped[str] = mapped_column(Text, default="")
    filler_order: Mapped[str] = mapped_column(Text, default="")
    procedure_code: Mapped[str] = mapped_column(Text, default="")
    """Universal service id: its components, joined by ``^``."""
    indication: Mapped[str] = mapped_column(Text, default="")
    priority: Mapped[str] = mapped_column(String(16), default="")
    """As a term of ``[priority.ordered]``; empty when the order says nothing."""
    location: Mapped[str] = mapped_column(Text, default="")
    status: Mapped[str] = mapped_column(String(16), default="")
    """Order control of the last message, e.g. ``NW``, ``CA``; ``MWL`` when it came by query."""
    source: Mapped[str] = mapped_column(Text, default="")
    """Control id of the message, or name of the worklist, that said it last."""
    updated_at: Mapped[dt.datetime]


class Hl7Message(Base):
    """A message as received; recorded before it is acknowledged, so that an AA is never a lie."""

    __tablename__ = "hl7_message"
    __table_args__ = (UniqueConstraint("sender", "control_id", "sha256"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    sender: Mapped[str] = mapped_column(String(128))
    """Sending application and facility (MSH-3, MSH-4); control ids are unique per sender."""
    control_id: Mapped[str] = mapped_column(String(200))
    """MSH-10; senders use one again after years, for other content, hence the digest beside it."""
    message_type: Mapped[str] = mapped_column(String(16), default="")
    state: Mapped[str] = mapped_column(String(16), index=True)
    """``received``, ``applied``, ``ignored`` or ``quarantined``."""
    reason: Mapped[str] = mapped_column(Text, default="")
    """Why it is quarantined or ignored; our own words, no content."""
    content: Mapped[bytes] = mapped_column(LargeBinary)
    sha256: Mapped[str] = mapped_column(String(64))
    """Of everything after the header segment: a repeat may carry a new time."""
    peer: Mapped[str] = mapped_column(String(64), default="")
    acknowledgement: Mapped[str] = mapped_column(String(2), default="")
    """What was answered: AA, AE or AR (a repeat is answered the same)."""
    received_at: Mapped[dt.datetime]
    applied_at: Mapped[dt.datetime | None] = mapped_column(default=None)

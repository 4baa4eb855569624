"""What a destination is told about a study, when it is told and not sent objects.

The protocol of every channel that carries *messages* (HL7, and whatever is added: webhook, FHIR,
UPS). A message destination has outbox rows as any other, of the kinds of `Kind`; there is no file
behind them. The flow:

1. The room that commits a priority (or the results) calls `agent.delivery.outbox.announce` in the
   same transaction. It writes one `Delivery` row per destination that wants the kind. `subject` is
   the control id (`control_id`), and `identity` says whose study it was at that moment.
   An unsent row of the same study, destination and kind is superseded: only the newest is told.
2. The sender claims the row and calls `build`: an `Announcement` is made *from the rows as they
   are now*, so that a message that waited for a dead link says what is true when it arrives.
3. The sender compares `announcement.identity` (when the row was written) with
   `announcement.study.identity` (now). A merge or a corrected accession in between stops the push
   for good (`IdentityChanged`, a dead letter); the destination is not asked whose study it holds.
4. `MessageChannel.announce(announcement)` returns when the destination took it, or raises a
   `NodeError` or `DeliveryError` whose `permanent` says whether asking again can help. Sent again
   after a crash, it carries the same `control_id`, by which a receiver can tell the repeat.

A new kind of channel: copy `channels/hl7.py`; one line in `registry.MESSAGE_CHANNELS`, the kind in
`settings.MESSAGE_DESTINATIONS` and in `Destination.kind`, a peer in the contract test. It must not
open the database: everything it may say is in the value it is given.
"""

from __future__ import annotations

import base64
import datetime as dt
import enum
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from agent.delivery.identity import Identity, clean
from agent.settings import Level
from db.models import Analysis, Delivery, Order, Study
from db.queries import announcements as rows
from db.queries import orders
from inference.findings import Finding, Findings, Status
from inference.report.draft import Draft

#: Said with every result, whatever the channel.
CAUTION = "Research use only. AI generated, not verified by a physician. No flag is not a negative."


class Kind(enum.StrEnum):
    """What an announcement is about; `Delivery.kind` of its row."""

    #: the level the study is read at, and why: as soon as it is committed
    PRIORITY = "priority"
    #: findings and, when there is one, the draft: with the result objects
    REPORT = "report"


KINDS = frozenset(kind.value for kind in Kind)


@dataclass(frozen=True)
class Subject:
    """The study and its patient, as received; what the order adds is empty when none is known.

    Attributes:
        identity: study UID, patient ID with issuer, accession number.
        modalities: of the received series, sorted.
        study_date, study_time: DICOM DA and TM values as received.
        procedure: description of the examination.
        procedure_code: the order's universal service id, as components (code, text, scheme).
        placer_order, filler_order: the order's numbers.
        procedure_id: requested procedure id.
    """

    identity: Identity
    patient_name: str
    birth_date: str
    sex: str
    modalities: tuple[str, ...]
    study_date: str
    study_time: str
    procedure: str
    procedure_code: tuple[str, ...] = ()
    placer_order: str = ""
    filler_order: str = ""
    procedure_id: str = ""
    indication: str = ""
    location: str = ""


@dataclass(frozen=True)
class Priority:
    """The level the study stands at, never below `ordered`."""

    level: Level
    score: float
    reason: str
    ordered: str
    """As received with the order or the images; empty when unknown."""


@dataclass(frozen=True)
class Opinion:
    """What one model pack said of the current revision.

    Attributes:
        model, version: of the pack.
        notice: the pack's research-use sentence.
        status, reason: how the analysis ended; the reason of anything but success.
        findings: above threshold, most probable first; grounding maps left out.
        looked_for: display names of all labels the pack can say.
    """

    analysis_id: str
    model: str
    version: str
    digest: str
    notice: str
    status: Status
    reason: str
    findings: tuple[Finding, ...]
    looked_for: tuple[str, ...]
    at: dt.datetime


@dataclass(frozen=True)
class Announcement:
    """Everything a message channel may say; frozen, made from the rows at send time.

    Attributes:
        kind: priority or report.
        control_id: 20 characters A-Z 2-7, the same at every attempt.
        enqueued_at: when there was something to tell; the same at every attempt.
        attempt: 1 for the first.
        revision: of the study; grows with late images.
        study: what and whose, now.
        identity: whose it was when the row was written.
        opinions: one for each pack that analysed the current revision.
        draft: unverified draft of the findings, when one was written.
        caution: must be shown wherever the rest is.
        unsupported: the site wants unsupported sentences, too, `agent.results.sentences.marked`.
    """

    kind: Kind
    control_id: str
    enqueued_at: dt.datetime
    attempt: int
    study_key: str
    revision: int
    study: Subject
    identity: Identity
    priority: Priority
    opinions: tuple[Opinion, ...]
    draft: Draft | None = None
    caution: str = CAUTION
    unsupported: bool = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all opinions: above threshold, most probable first."""
        found = (f for opinion in self.opinions for f in opinion.findings)
        return tuple(sorted(found, key=lambda f: -f.probability))


def build(session: Session, delivery: Delivery, *, unsupported: bool = False) -> Announcement:
    """The announcement of an outbox row, from the rows as they are now."""
    study = session.get_one(Study, delivery.study_id)
    kind = Kind(delivery.kind)
    return Announcement(
        kind=kind,
        control_id=delivery.subject,
        enqueued_at=delivery.created_at,
        attempt=max(1, delivery.attempts),
        study_key=study.key,
        revision=study.revision,
        study=_subject(study, orders.of_study(session, study)),
        identity=read_identity(delivery.identity) or identity_of(study),
        priority=_priority(study, session.get_one(Analysis, delivery.analysis_id)),
        opinions=tuple(_opinion(a) for a in rows.current_analyses(session, study)),
        draft=_draft(session, study) if kind is Kind.REPORT else None,
        unsupported=unsupported,
    )


def control_id(analysis_id: str, kind: str, occasion: str = "") -> str:
    """The id a destination recognises a repeat by: stable, 20 characters (HL7 2.3 MSH-10).

    Args:
        analysis_id: what it is about.
        kind: of the announcement.
        occasion: what made the same analysis worth another announcement (a changed order, a level
            set by hand); empty for the first.
    """
    digest = hashlib.sha256(f"{analysis_id}\n{kind}\n{occasion}".encode()).digest()
    return base64.b32encode(digest).decode()[:20]


def worth_telling(level: Level, ordered: Level | None, *, told_before: bool) -> bool:
    """Whether a priority is news to those who know the order: above it, or a correction."""
    return told_before or level.rank < (ordered or Level.LOW).rank


def identity_of(study: Study) -> Identity:
    """Whose study it is now."""
    return Identity(
        study_uid=study.study_uid,
        patient_id=clean(study.patient_id),
        issuer_of_patient_id=clean(study.issuer_of_patient_id),
        accession_number=clean(study.accession_number),
    )


def write_identity(identity: Identity) -> str:
    """As kept in `Delivery.identity`."""
    values = (
        identity.study_uid,
        identity.patient_id,
        identity.issuer_of_patient_id,
        identity.accession_number,
    )
    return json.dumps(values)


def read_identity(text: str) -> Identity | None:
    """Inverse of `write_identity`; None for a row without one."""
    return Identity(*json.loads(text)) if text else None


def _subject(study: Study, order: Order | None) -> Subject:
    return Subject(
        identity=identity_of(study),
        patient_name=study.patient_name,
        birth_date=study.patient_birth_date,
        sex=study.patient_sex,
        modalities=tuple(m for m in study.modalities.split("\\") if m),
        study_date=study.study_date,
        study_time=study.study_time,
        procedure=study.description,
        procedure_code=_components(order.procedure_code) if order else (),
        placer_order=order.placer_order if order else "",
        filler_order=order.filler_order if order else "",
        procedure_id=order.procedure_id if order else "",
        indication=order.indication if order else "",
        location=study.patient_location,
    )


def _components(text: str) -> tuple[str, ...]:
    return tuple(text.split("^")) if text else ()


def _priority(study: Study, analysis: Analysis) -> Priority:
    """The study's own level; the analysis' in shadow mode, to show what would be told."""
    if study.priority and not analysis.shadow:
        level, score, reason = study.priority, study.priority_score, study.priority_reason
    else:
        level, score = analysis.priority, analysis.priority_score
        reason = analysis.priority_reason
    return Priority(Level(level), score, reason, study.ordered_priority)


def _draft(session: Session, study: Study) -> Draft | None:
    row = rows.current_draft(session, study)
    return Draft.from_json(row.draft) if row is not None and row.draft else None


def _opinion(analysis: Analysis) -> Opinion:
    said = Findings.from_json(analysis.findings)
    return Opinion(
        analysis_id=analysis.id,
        model=analysis.pack,
        version=analysis.pack_version,
        digest=analysis.pack_digest,
        notice=said.pack.notice,
        status=said.status,
        reason=said.reason,
        findings=said.positives,
        looked_for=tuple(f.display for f in said.findings),
        at=analysis.created_at,
    )


__all__: Sequence[str] = (
    "CAUTION",
    "KINDS",
    "Announcement",
    "Kind",
    "Opinion",
    "Priority",
    "Subject",
    "build",
    "control_id",
    "identity_of",
    "read_identity",
    "worth_telling",
    "write_identity",
)

"""Everything the study page and its JSON show of one study, as frozen values."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from agent import priors, worklist
from agent.drafting import triage_json
from agent.settings import PrioritySettings
from agent.web.answers import ModelAnswers, answers_of
from agent.worklist import WorklistEntry
from agent.worklist_entries import FindingLine, finding_lines
from db.models import Analysis, Study
from db.queries import drafts, orders
from db.queries import worklist as queries
from db.states import DraftState
from inference.report.draft import Draft


@dataclass(frozen=True)
class SeriesDetail:
    """A received series: used by the model, or the reason why not."""

    series_uid: str
    number: int | None
    modality: str
    description: str
    instances: int
    own_result: bool
    used: bool
    reason: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class AnalysisDetail:
    """One analysis with every label, present or absent."""

    id: str
    revision: int
    status: str
    status_reason: str
    pack: str
    pack_version: str
    pack_digest: str
    code_version: str
    notice: str
    device: str
    seconds: float
    priority: str
    reason: str
    shadow: bool
    provisional: bool
    created_at: dt.datetime
    findings: tuple[FindingLine, ...]
    answers: ModelAnswers | None = None
    """Charts, where the model publishes scores."""


@dataclass(frozen=True)
class ResultDetail:
    """One DICOM object that was made."""

    kind: str
    label: str
    sop_uid: str
    size_bytes: int
    created_at: dt.datetime


@dataclass(frozen=True)
class DeliveryDetail:
    """One row of the outbox."""

    id: int
    destination: str
    kind: str
    state: str
    attempts: int
    next_attempt_at: dt.datetime
    last_error: str
    sent_at: dt.datetime | None
    committed_at: dt.datetime | None
    seen_at: dt.datetime | None
    delivered_at: dt.datetime | None


@dataclass(frozen=True)
class EventDetail:
    """One line of the timeline."""

    at: dt.datetime
    who: str
    kind: str
    from_state: str
    to_state: str
    why: str


@dataclass(frozen=True)
class FeedbackDetail:
    """What a reader said."""

    at: dt.datetime
    who: str
    kind: str
    text: str


@dataclass(frozen=True)
class SentenceDetail:
    """One drafted sentence, what the guard says of it, and the findings that support it."""

    text: str
    verdict: str
    reason: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class DraftDetail:
    """The drafted report of the current revision: unverified, whoever wrote it."""

    revision: int
    state: str
    source: str
    model: str
    reason: str
    exam_type: str
    sentences: tuple[SentenceDetail, ...]
    waiting_because: str
    next_attempt_at: dt.datetime | None
    triage_level: str
    triage_reason: str
    triage_model: str


@dataclass(frozen=True)
class OrderDetail:
    """What the order says beyond what is on the study."""

    placer_order: str
    filler_order: str
    indication: str
    priority: str
    location: str
    status: str
    updated_at: dt.datetime


@dataclass(frozen=True)
class PriorDetail:
    """Another study of the same patient."""

    key: str
    date: str
    description: str
    modalities: str
    priority: str
    reading_state: str
    found: tuple[str, ...]


@dataclass(frozen=True)
class StudyDetail:
    """The whole study page."""

    entry: WorklistEntry
    series: tuple[SeriesDetail, ...]
    analyses: tuple[AnalysisDetail, ...]
    results: tuple[ResultDetail, ...]
    deliveries: tuple[DeliveryDetail, ...]
    events: tuple[EventDetail, ...]
    feedback: tuple[FeedbackDetail, ...]
    draft: DraftDetail | None = None
    order: OrderDetail | None = None
    priors: tuple[PriorDetail, ...] = ()


def study_detail(
    session: Session, reference: str, priority: PrioritySettings, now: dt.datetime
) -> StudyDetail | None:
    """Read one study by key or id; None when there is none.

    Analyses, results and deliveries come newest first, the timeline oldest first.
    """
    study = queries.find_study(session, reference)
    entry = worklist.entry(session, priority, now, study.id) if study else None
    if study is None or entry is None:
        return None
    record = queries.record_of(session, study.id)
    return StudyDetail(
        entry=entry,
        series=_series(session, study, record.analyses),
        analyses=tuple(_analysis(session, study, a) for a in reversed(record.analyses)),
        results=tuple(
            ResultDetail(r.kind, r.label, r.sop_uid, r.size_bytes, r.created_at)
            for r in reversed(record.results)
        ),
        deliveries=tuple(
            DeliveryDetail(
                id=d.id,
                destination=d.destination,
                kind=d.kind,
                state=d.state,
                attempts=d.attempts,
                next_attempt_at=d.next_attempt_at,
                last_error=d.last_error,
                sent_at=d.sent_at,
                committed_at=d.committed_at,
                seen_at=d.seen_at,
                delivered_at=d.delivered_at,
            )
            for d in reversed(record.deliveries)
        ),
        events=tuple(
            EventDetail(e.at, e.who, e.kind, e.from_state, e.to_state, e.why) for e in record.events
        ),
        feedback=tuple(FeedbackDetail(f.at, f.who, f.kind, f.text) for f in record.feedback),
        draft=_draft(session, study),
        order=_order(session, study),
        priors=tuple(_prior(row) for row in queries.priors(session, study)),
    )


def _order(session: Session, study: Study) -> OrderDetail | None:
    row = orders.of_study(session, study)
    if row is None:
        return None
    return OrderDetail(
        placer_order=row.placer_order,
        filler_order=row.filler_order,
        indication=row.indication,
        priority=row.priority,
        location=row.location,
        status=row.status,
        updated_at=row.updated_at,
    )


def _prior(row: Study) -> PriorDetail:
    return PriorDetail(
        key=row.key,
        date=row.study_date,
        description=row.description,
        modalities=row.modalities.replace("\\", "/"),
        priority=row.priority,
        reading_state=row.reading_state,
        found=tuple(row.found.split("\n")[::2])
        if row.found
        else (),  # display, label, display, ...
    )


def _draft(session: Session, study: Study) -> DraftDetail | None:
    row = drafts.newest(session, study.id)
    if row is None or not row.draft:
        return None
    draft = Draft.from_json(row.draft)
    triage = triage_json.read(row.triage) if row.triage else None
    open_ = row.state in (DraftState.WAITING, DraftState.DRAFTING)
    return DraftDetail(
        revision=row.revision,
        state=row.state,
        source=row.source,
        model=row.model,
        reason=draft.reason,
        exam_type=draft.exam_type,
        sentences=tuple(
            SentenceDetail(s.text, s.verdict.value, s.reason, s.labels) for s in draft.sentences
        ),
        waiting_because=row.last_error,
        next_attempt_at=row.next_attempt_at if open_ else None,
        triage_level=triage.level.value if triage else "",
        triage_reason=triage.reason if triage else "",
        triage_model=triage.model if triage else "",
    )


def _series(
    session: Session, study: Study, analyses: Sequence[Analysis]
) -> tuple[SeriesDetail, ...]:
    latest = [a for a in analyses if a.revision == analyses[-1].revision]
    reports = [report for a in latest for report in json.loads(a.findings)["series"]]
    # of several packs, the one that read the series speaks for it
    reports.sort(key=lambda report: bool(report.get("used", False)))
    by_uid = {report["series_uid"]: report for report in reports}
    details = []
    for row in queries.series_of(session, study.id):
        report = by_uid.get(row.series.series_uid, {})
        details.append(
            SeriesDetail(
                series_uid=row.series.series_uid,
                number=row.series.number,
                modality=row.series.modality,
                description=row.series.description,
                instances=row.instances,
                own_result=row.series.own_result,
                used=bool(report.get("used", False)),
                reason=row.series.reason or report.get("reason", ""),
                warnings=tuple(report.get("warnings", ())),
            )
        )
    return tuple(details)


def _analysis(session: Session, study: Study, row: Analysis) -> AnalysisDetail:
    said = json.loads(row.findings)
    return AnalysisDetail(
        id=row.id,
        revision=row.revision,
        status=row.status,
        status_reason=said["reason"],
        pack=row.pack,
        pack_version=row.pack_version,
        pack_digest=row.pack_digest,
        code_version=row.code_version,
        notice=said["pack"]["notice"],
        device=said["device"],
        seconds=row.seconds,
        priority=row.priority,
        reason=row.priority_reason,
        shadow=row.shadow,
        provisional=row.provisional,
        created_at=row.created_at,
        findings=finding_lines(said),
        answers=answers_of(said, priors.compare(session, study, row)),
    )

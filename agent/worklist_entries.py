"""One line of the reading worklist as a frozen value, made from the rows that say it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from agent.settings import Level
from db.models import Analysis, Study
from db.states import OPEN_DELIVERIES, DeliveryState
from inference.findings import ATTENTION, Acuity

ACUITIES = [acuity.value for acuity in Acuity]
"""Urgent first."""


@dataclass(frozen=True)
class Patient:
    """Identity as received."""

    id: str
    issuer: str
    name: str
    birth_date: str
    sex: str


@dataclass(frozen=True)
class StudyLine:
    """What was examined. `key` addresses the study in URLs and carries no patient data."""

    id: int
    key: str
    study_uid: str
    date: str
    time: str
    description: str
    modalities: tuple[str, ...]
    accession: str
    ordered_priority: str
    location: str
    station: str
    calling_ae: str
    instances: int
    revision: int


@dataclass(frozen=True)
class FindingLine:
    """One label of the pack: what it says, and whether a picture can be shown."""

    label: str
    display: str
    probability: float
    threshold: float
    acuity: str
    present: bool
    localized: bool
    series_uid: str = ""
    """Where the model looked; empty when it cannot be shown."""
    method: str = ""
    """How that is known: by its attention, or by LIME; with how well LIME's fit predicts."""
    fit: float | None = None


@dataclass(frozen=True)
class PackLine:
    """Which model said it, under which terms."""

    name: str
    version: str
    licence: str
    notice: str


@dataclass(frozen=True)
class DeliverySummary:
    """How far the results of the latest analysis have come."""

    delivered: int = 0
    open: int = 0
    dead: int = 0
    shadow: int = 0


@dataclass(frozen=True)
class AnalysisLine:
    """What the latest analysis said.

    Attributes:
        current: False when images arrived since and a newer revision is on its way.
        findings: those above threshold, urgent first, then most probable.
        series_number: of the series in which the first picture is; None when it has none.
    """

    id: str
    revision: int
    current: bool
    status: str
    status_reason: str
    level: Level
    score: float
    reason: str
    shadow: bool
    pack: PackLine
    findings: tuple[FindingLine, ...]
    series_number: int | None = None

    @property
    def pictured(self) -> FindingLine | None:
        """The first finding of which there is a picture."""
        return next((line for line in self.findings if line.localized), None)


@dataclass(frozen=True)
class WorklistEntry:
    """A study at its place.

    Attributes:
        rank: 1 is read first; None for a study that is read already.
        level: the level the study was given (in shadow mode: what was ordered).
        effective_level: where it stands now; more urgent than `level` after a long wait.
        overdue: it has waited longer than the target of its level.
        prioritized: the level is the model's; otherwise the order's, or the default.
    """

    rank: int | None
    level: Level
    effective_level: Level
    overdue: bool
    prioritized: bool
    patient: Patient
    study: StudyLine
    state: str
    state_reason: str
    reading_state: str
    waiting_since: dt.datetime
    waiting_minutes: float
    target_minutes: float
    analysis: AnalysisLine | None
    deliveries: DeliverySummary
    priority_reason: str = ""
    """Why the study has the level it was given, whoever gave it."""
    set_by_reader: bool = False
    """The level is a reader's word."""
    priors: int = 0
    """Other studies of the same patient that we know."""

    @property
    def shadow(self) -> bool:
        """The model's opinion is recorded and moves nothing."""
        return self.analysis is not None and self.analysis.shadow


def patient_of(study: Study) -> Patient:
    """The identity part of a study row."""
    return Patient(
        id=study.patient_id,
        issuer=study.issuer_of_patient_id,
        name=study.patient_name,
        birth_date=study.patient_birth_date,
        sex=study.patient_sex,
    )


def study_of(study: Study) -> StudyLine:
    """The examination part of a study row."""
    return StudyLine(
        id=study.id,
        key=study.key,
        study_uid=study.study_uid,
        date=study.study_date,
        time=study.study_time,
        description=study.description,
        modalities=tuple(m for m in study.modalities.split("\\") if m),
        accession=study.accession_number,
        ordered_priority=study.ordered_priority,
        location=study.patient_location,
        station=study.station_name,
        calling_ae=study.calling_ae,
        instances=study.instance_count,
        revision=study.revision,
    )


def summary_of(findings: str) -> str:
    """What the worklist shows of a findings JSON, without the maps: `Analysis.summary`."""
    said = json.loads(findings)
    return json.dumps(
        {
            "reason": said["reason"],
            "licence": said["pack"]["licence"],
            "notice": said["pack"]["notice"],
            "findings": [asdict(line) for line in finding_lines(said) if line.present],
        },
        separators=(",", ":"),
    )


def names_of(findings: Iterable[str]) -> str:
    """Names of what findings JSONs found, as the list is searched by: `Study.found`."""
    lines = (line for text in findings for line in finding_lines(json.loads(text)))
    named = {f"{line.display}\n{line.label}".casefold() for line in lines if line.present}
    return "\n".join(sorted(named))


def analysis_of(
    row: Analysis, study: Study, summary: str, series_numbers: Mapping[str, int]
) -> AnalysisLine:
    """The model part: what was said about the study.

    Args:
        row: the analysis; its findings are not touched, they may hold megabytes of maps.
        study: it is about.
        summary: of the row, see `summary_of`.
        series_numbers: series UID -> number, of the studies on the page.
    """
    said = json.loads(summary)
    lines = tuple(FindingLine(**line) for line in said["findings"])
    shown = next((line for line in lines if line.localized), None)
    return AnalysisLine(
        id=row.id,
        revision=row.revision,
        current=row.revision == study.revision,
        status=row.status,
        status_reason=said["reason"],
        level=Level(row.priority),
        score=row.priority_score,
        reason=_reason(row, study),
        shadow=row.shadow,
        pack=PackLine(
            name=row.pack,
            version=row.pack_version,
            licence=said["licence"],
            notice=said["notice"],
        ),
        findings=lines,
        series_number=series_numbers.get(shown.series_uid) if shown else None,
    )


def _reason(row: Analysis, study: Study) -> str:
    """Why the study stands where it stands; in shadow mode, what the model would have said."""
    decides = row.revision == study.revision and not row.shadow
    return (study.priority_reason if decides else "") or row.priority_reason


def finding_lines(said: Mapping[str, Any]) -> tuple[FindingLine, ...]:
    """Every label of a findings JSON: present before absent, urgent first, then most probable.

    Reads the JSON directly: a worklist of many studies must not unpack their saliency maps.
    """
    lines = (
        FindingLine(
            label=f["label"],
            display=f["display"],
            probability=f["probability"],
            threshold=f["threshold"],
            acuity=f["acuity"],
            present=_is_present(f),
            localized=f["grounding"] is not None,
            series_uid=f["grounding"]["series_uid"] if f["grounding"] is not None else "",
            method=f["grounding"].get("method", ATTENTION) if f["grounding"] is not None else "",
            fit=f["grounding"].get("fit") if f["grounding"] is not None else None,
        )
        for f in said["findings"]
    )
    return tuple(sorted(lines, key=_weight))


def _is_present(finding: Mapping[str, Any]) -> bool:
    """As `inference.findings.Finding.present`."""
    score = finding.get("score")
    if score is not None:
        return bool(score >= 0)
    return bool(finding["probability"] > finding["threshold"])


def _weight(line: FindingLine) -> tuple[bool, int, float]:
    urgency = ACUITIES.index(line.acuity) if line.present else 0
    return not line.present, urgency, -line.probability


def deliveries_of(counts: Mapping[str, int]) -> DeliverySummary:
    """Summarise deliveries by state."""
    return DeliverySummary(
        delivered=counts.get(DeliveryState.DELIVERED, 0),
        open=sum(counts.get(state, 0) for state in OPEN_DELIVERIES),
        dead=counts.get(DeliveryState.DEAD, 0),
        shadow=counts.get(DeliveryState.SHADOW, 0),
    )

"""Analyse a directory without a database or a network: findings, priority and result objects."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from agent import facts as study_facts
from agent import priority
from agent.analysis.room import IMAGE_MODALITIES, Analyser, with_thresholds
from agent.config import Config
from agent.errors import AgentError
from agent.results import compose
from agent.results import context as contexts
from agent.routing import rules
from inference.findings import Findings
from inference.study import SeriesInput, StudyInput

TAGS = [
    "AccessionNumber",
    "BodyPartExamined",
    "Modality",
    "PatientBirthDate",
    "ProtocolName",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "StationName",
    "StudyDate",
    "StudyDescription",
    "StudyInstanceUID",
]


class OfflineError(AgentError):
    """The directory cannot be analysed."""

    permanent = True


@dataclasses.dataclass(frozen=True)
class OfflineStudy:
    """A study found in a directory."""

    study: StudyInput
    facts: study_facts.StudyFacts


def read_directory(directory: Path) -> OfflineStudy:
    """Group the DICOM files below a directory into one study.

    Raises:
        OfflineError: no DICOM image, or more than one study.
    """
    headers = [(path, header) for path in _files(directory) if (header := _header(path))]
    studies = {str(h.get("StudyInstanceUID", "")) for _, h in headers}
    if not studies:
        raise OfflineError(f"{directory}: no DICOM file below it")
    if len(studies) > 1:
        raise OfflineError(
            f"{directory}: holds {len(studies)} studies; give the directory of one study"
        )
    series = _series(headers)
    if not series:
        raise OfflineError(
            f"{directory}: no {' or '.join(IMAGE_MODALITIES)} series; nothing a model can read"
        )
    modalities = [s.modality for s in series]
    modality = max(IMAGE_MODALITIES, key=modalities.count)
    return OfflineStudy(StudyInput(studies.pop(), modality, series), _facts(headers))


def choose_pack(found: OfflineStudy, config: Config, wanted: str | None) -> str:
    """The pack asked for, or the one the routing rules choose.

    Raises:
        OfflineError: the pack is unknown, or the rules skip the study.
    """
    if wanted is not None:
        if wanted not in config.packs:
            known = ", ".join(sorted(config.packs)) or "none"
            raise OfflineError(f"no pack {wanted!r} is configured; known: {known}")
        return wanted
    route = rules.route(found.facts, config.routing)
    if not route.pack:
        raise OfflineError(f"not analysed: {route.reason}; use --pack to analyse it all the same")
    return route.pack


def analyse(
    found: OfflineStudy,
    config: Config,
    pack: str,
    engine: Analyser,
    installation: contexts.Installation,
    out: Path,
    now: Callable[[], dt.datetime],
) -> dict[str, Any]:
    """Run the model, decide the priority, write ``findings.json`` and the result objects.

    Returns:
        The content of ``findings.json``.
    """
    findings = with_thresholds(engine.analyse(found.study, pack), config.packs[pack].thresholds)
    decision = priority.decide(findings, found.facts, config.priority)
    context = contexts.ResultContext(
        analysis_id=_analysis_id(found.study, findings),
        revision=1,
        created_at=now().astimezone(),
        findings=findings,
        priority=contexts.PriorityStatement(
            decision.level, decision.score, decision.reason, decision.ordered
        ),
        sources=found.study.series,
        installation=installation,
        options=contexts.ResultOptions(
            kinds=config.results.kinds, max_segments=config.results.max_segments
        ),
    )
    made = compose.compose_files(context, out)
    report = summary(findings, decision)
    report["files"] = {path.name: f"{one.kind} {one.label}".strip() for one, path in made}
    _write_json(out / "findings.json", report)
    return report


def summary(findings: Findings, decision: priority.Decision) -> dict[str, Any]:
    """Findings and priority as plain JSON values, every label with its full-precision number."""
    return {
        "notice": findings.pack.notice,
        "study_uid": findings.study_uid,
        "status": findings.status,
        "reason": findings.reason,
        "pack": dataclasses.asdict(findings.pack),
        "priority": {
            "level": decision.level,
            "score": decision.score,
            "reason": decision.reason,
        },
        "findings": [
            {
                "label": f.label,
                "display": f.display,
                "probability": f.probability,
                "threshold": f.threshold,
                "present": f.present,
                "acuity": f.acuity,
                "code": dataclasses.asdict(f.code),
                "key_sop_uid": f.grounding.key_sop_uid if f.grounding else None,
            }
            for f in findings.findings
        ],
        "series": [dataclasses.asdict(s) for s in findings.series],
        "timings_s": findings.timings_s,
        "device": findings.device,
    }


def _files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file())


def _header(path: Path) -> Dataset | None:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
    except (InvalidDicomError, OSError):
        return None


def _series(headers: Sequence[tuple[Path, Dataset]]) -> tuple[SeriesInput, ...]:
    files: dict[str, list[Path]] = {}
    first: dict[str, Dataset] = {}
    for path, header in headers:
        if header.get("Modality") in IMAGE_MODALITIES:
            uid = str(header.get("SeriesInstanceUID", ""))
            files.setdefault(uid, []).append(path)
            first.setdefault(uid, header)
    return tuple(
        SeriesInput(
            uid,
            str(first[uid].Modality),
            str(first[uid].get("SeriesDescription", "")),
            tuple(paths),
        )
        for uid, paths in files.items()
    )


def _facts(headers: Sequence[tuple[Path, Dataset]]) -> study_facts.StudyFacts:
    datasets = [header for _, header in headers]

    def values(keyword: str) -> list[str]:
        found = dict.fromkeys(str(d.get(keyword) or "") for d in datasets)
        return [value for value in found if value]

    def first(keyword: str) -> str:
        return next(iter(values(keyword)), "")

    texts = [
        *values("StudyDescription"),
        *values("SeriesDescription"),
        *values("ProtocolName"),
    ]
    return study_facts.StudyFacts(
        modalities=frozenset(values("Modality")),
        body_part=first("BodyPartExamined"),
        texts=tuple(texts),
        station=first("StationName"),
        age_years=study_facts.age_years(first("PatientBirthDate"), first("StudyDate")),
    )


def _analysis_id(study: StudyInput, findings: Findings) -> str:
    """The same study and pack give the same identifiers: running it again replaces the files."""
    text = f"offline/{study.study_uid}/{findings.pack.digest}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

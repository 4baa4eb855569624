"""Analyse a directory without a database or a network: findings, priority and result objects."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from agent import facts as study_facts
from agent import priority
from agent.analysis.room import Analyser, with_thresholds
from agent.config import Config
from agent.errors import AgentError
from agent.results import compose
from agent.results import context as contexts
from agent.routing import rules
from dicom_nodes import headers
from dicom_nodes.headers import Header
from inference.findings import Findings
from inference.study import IMAGE_MODALITIES, SeriesInput, StudyInput

log = structlog.get_logger(__name__)

PREAMBLE_BYTES = 128


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
    found = list(_instances(directory))
    studies = {header.study_uid for _, header in found}
    if not studies:
        raise OfflineError(f"{directory}: no DICOM file below it")
    if len(studies) > 1:
        raise OfflineError(
            f"{directory}: holds {len(studies)} studies; give the directory of one study"
        )
    series = _series(found)
    if not series:
        raise OfflineError(
            f"{directory}: no {' or '.join(IMAGE_MODALITIES)} series; nothing a model can read"
        )
    modalities = [s.modality for s in series]
    modality = max(IMAGE_MODALITIES, key=modalities.count)
    return OfflineStudy(
        StudyInput(studies.pop(), modality, series), _facts([header for _, header in found])
    )


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


def _instances(directory: Path) -> Iterator[tuple[Path, Header]]:
    """DICOM instances below a directory; other files, a DICOMDIR too, are passed over."""
    unreadable = 0
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        if not _is_dicom(path):
            continue
        try:
            header = headers.read(path)
        except headers.UnreadableHeader:
            unreadable += 1
            continue
        if header.study_uid:
            yield path, header
    if unreadable:
        log.warning("files_unreadable", unreadable=unreadable)


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(PREAMBLE_BYTES + 4)[PREAMBLE_BYTES:] == b"DICM"


def _series(found: Sequence[tuple[Path, Header]]) -> tuple[SeriesInput, ...]:
    files: dict[str, list[Path]] = {}
    first: dict[str, Header] = {}
    for path, header in found:
        if header.modality in IMAGE_MODALITIES:
            files.setdefault(header.series_uid, []).append(path)
            first.setdefault(header.series_uid, header)
    return tuple(
        SeriesInput(uid, first[uid].modality, first[uid].series_description, tuple(paths))
        for uid, paths in files.items()
    )


def _facts(found: Sequence[Header]) -> study_facts.StudyFacts:
    def values(name: str) -> list[str]:
        return [value for value in dict.fromkeys(getattr(h, name) for h in found) if value]

    def first(name: str) -> str:
        return next(iter(values(name)), "")

    names = ("study_description", "series_description", "protocol", "body_part")
    return study_facts.StudyFacts(
        modalities=frozenset(values("modality")),
        body_part=first("body_part"),
        texts=tuple(text for name in names for text in values(name)),
        station=first("station_name"),
        location=first("patient_location"),
        ordered_priority=first("ordered_priority"),
        age_years=study_facts.age_years(first("patient_birth_date"), first("study_date")),
        image_series=len({h.series_uid for h in found if h.modality in IMAGE_MODALITIES}),
    )


def _analysis_id(study: StudyInput, findings: Findings) -> str:
    """The same study and pack give the same identifiers: running it again replaces the files."""
    text = f"offline/{study.study_uid}/{findings.pack.digest}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

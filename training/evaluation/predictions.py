"""What a pack says of the studies of a table: run once, kept on disk, read by the evaluation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from inference.engine import Engine
from inference.findings import REFERRAL, Acuity, Findings, Status
from inference.study import StudyInput
from training.data.studies import group_series
from training.data.table import StudyRow

log = structlog.get_logger(__name__)

Progress = Callable[[int, int, float], None]
ORDER = (Acuity.URGENT, Acuity.ROUTINE, Acuity.NORMAL)
REFERRAL_COLUMN, PRIORITY_COLUMN = "referral_", "priority_"
"""How a table's columns of referrals and priority levels begin; all others are diagnoses."""


@dataclass(frozen=True)
class Prediction:
    """A pack's answer for one study.

    Attributes:
        probability: by label; referrals under the name of their column.
        present: by label, at the pack's own threshold.
        acuity: most urgent class among the present findings; ``normal`` when there is none.
        reason: why the study was not analysed; empty otherwise.
        level: the pack's own priority, where it has a head for it.
    """

    study: str
    modality: str
    probability: Mapping[str, float]
    present: Mapping[str, bool]
    acuity: str
    reason: str = ""
    level: str = ""


def predict(
    engine: Engine,
    pack: str,
    rows: Sequence[StudyRow],
    kept: Path,
    progress: Progress | None = None,
) -> list[Prediction]:
    """Analyse every study with the agent's own engine; a stopped run goes on where it was.

    Answers lie in `kept`, one JSON line a study, and are used again for the same pack.
    """
    kept.parent.mkdir(parents=True, exist_ok=True)
    known = {one.study: one for one in read_predictions(kept)} if kept.is_file() else {}
    missing = [row for row in rows if row.study not in known]
    started = time.monotonic()
    with kept.open("a", encoding="utf-8") as stream:
        for done, row in enumerate(missing, start=1):
            known[row.study] = one = _one(engine, pack, row)
            stream.write(json.dumps(asdict(one)) + "\n")
            stream.flush()
            if progress is not None:
                left = (time.monotonic() - started) / done * (len(missing) - done)
                progress(done, len(missing), left)
    return [known[row.study] for row in rows]


def read_predictions(file: Path) -> list[Prediction]:
    """The answers in a file; a torn last line is left out."""
    with file.open(encoding="utf-8") as stream:
        return [Prediction(**json.loads(line)) for line in stream if line.endswith("\n")]


def _one(engine: Engine, pack: str, row: StudyRow) -> Prediction:
    series = tuple(one for one in group_series(row.path) if row.modality in ("", one.modality))
    if not series:
        return Prediction(row.study, row.modality, {}, {}, "", "no DICOM series of its modality")
    modalities = [one.modality for one in series]
    modality = max(sorted(set(modalities)), key=modalities.count)
    found = engine.analyse(StudyInput(row.study, modality, series), pack)
    if found.status in (Status.FAILED, Status.NOT_ATTEMPTED):
        return Prediction(row.study, modality, {}, {}, "", found.reason or found.status.value)
    return of_findings(row.study, modality, found)


def of_findings(study: str, modality: str, found: Findings) -> Prediction:
    """The answer that findings are."""
    named = {f"{REFERRAL_COLUMN if f.kind == REFERRAL else ''}{f.label}": f for f in found.findings}
    present = {name: f.present for name, f in named.items()}
    classes = [f.acuity for f in named.values() if f.present and f.kind != REFERRAL]
    acuity = min(classes, key=ORDER.index, default=Acuity.NORMAL)
    probability = {name: f.probability for name, f in named.items()}
    level = found.model_priority.level if found.model_priority else ""
    return Prediction(study, modality, probability, present, acuity.value, level=level)

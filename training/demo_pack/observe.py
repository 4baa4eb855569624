"""Runs a pack over synthetic studies exactly as the agent does, and compares with the truth.

Every study is written as DICOM files and read back by the engine, so nothing between the scanner
and the answer is left out.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from inference.engine import Engine
from inference.explain.agreement import dice, pointing_hit
from inference.explain.resample import resample_to_volume
from inference.findings import Finding, Findings
from inference.study import SeriesInput, StudyInput
from training.demo_pack.cases import Case
from training.synthetic.dicom import StudyTags, series_uids, study_uid, write_dicom
from training.synthetic.study import SyntheticStudy
from training.workers import one_thread

log = structlog.get_logger(__name__)

HALF_TOKEN_MM = 8.0
"""The peak of a token map is a token's center; its token reaches this far."""


@dataclass(frozen=True)
class Place:
    """How the grounding of a true, localized label agrees with its mask.

    Attributes:
        hit: the most salient voxel lies in the mask.
        near: it lies within half a token of it.
        dice: overlap of the finding's mask, as it would be sent, with the true one.
    """

    hit: bool
    near: bool
    dice: float


@dataclass(frozen=True)
class Observation:
    """What the pack said of one study, and what is true.

    `places` has an entry for each true label with a mask; None where nothing was grounded.
    """

    key: str
    modality: str
    truth: dict[str, bool]
    probability: dict[str, float]
    places: dict[str, Place | None]


def observe(
    pack: Path, cases: Sequence[Case], workers: int, folder: Path | None = None
) -> list[Observation]:
    """Analyse every case with the pack; answers are kept in `folder` for a restart."""
    missing = [c for c in cases if folder is None or not _path(folder, c).is_file()]
    found = {c.key: _load(_path(folder, c)) for c in cases if folder and c not in missing}
    started = time.monotonic()
    for done, one in enumerate(_each(pack, missing, workers), start=1):
        found[one.key] = one
        if folder is not None:
            _save(_path(folder, one), one)
        if done % 20 == 0 or done == len(missing):
            spent_s = time.monotonic() - started
            eta_s = round(spent_s / done * (len(missing) - done))
            log.info("studies_observed", done=done, of=len(missing), eta_s=eta_s)
    return [found[case.key] for case in cases]


def analyse_study(engine: Engine, pack_name: str, study: SyntheticStudy) -> Findings:
    """Write a study to files and analyse them."""
    tags = StudyTags()
    with tempfile.TemporaryDirectory() as folder:
        files = write_dicom(study, Path(folder), tags, extras=False)
        by_folder: dict[Path, list[Path]] = {}
        for file in files:
            by_folder.setdefault(file.parent, []).append(file)
        series = tuple(
            SeriesInput(uid, study.modality, one.name, tuple(paths))
            for uid, one, paths in zip(
                series_uids(study, tags), study.series, by_folder.values(), strict=True
            )
        )
        return engine.analyse(StudyInput(study_uid(study, tags), study.modality, series), pack_name)


def compare(key: str, study: SyntheticStudy, findings: Findings) -> Observation:
    """Hold the findings against the truth.

    Raises:
        ValueError: the engine did not analyse the study.
    """
    if not findings.findings:
        raise ValueError(f"case {key} was not analysed: {findings.reason}")
    by_uid = dict(zip(series_uids(study, StudyTags()), study.series, strict=True))
    places: dict[str, Place | None] = {}
    for finding in findings.findings:
        if finding.label in study.masks and study.masks[finding.label].any():
            places[finding.label] = _place(finding, by_uid)
    return Observation(
        key=key,
        modality=study.modality,
        truth={f.label: f.label in study.labels for f in findings.findings},
        probability={f.label: f.probability for f in findings.findings},
        places=places,
    )


def _place(finding: Finding, by_uid: dict[str, Any]) -> Place | None:
    grounding = finding.grounding
    if grounding is None:
        return None
    series = by_uid[grounding.series_uid]
    truth = series.masks[finding.label]
    saliency = resample_to_volume(grounding, series.affine, series.array.shape)
    k, r, c = np.linalg.norm(series.affine[:3, :3], axis=0).tolist()
    hit = pointing_hit(saliency, truth)
    return Place(
        hit=hit,
        near=hit or pointing_hit(saliency, truth, (k, r, c), HALF_TOKEN_MM),
        dice=dice(saliency >= grounding.threshold, truth),
    )


def _each(pack: Path, cases: Sequence[Case], workers: int) -> Iterator[Observation]:
    if workers <= 1 or len(cases) < 4:
        yield from (_observe_one(pack, case) for case in cases)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, initializer=one_thread) as pool:
        yield from pool.map(_observe_one, [pack] * len(cases), cases, chunksize=2)


_engines: dict[Path, Engine] = {}
"""One per worker process: loading verifies every file."""


def _observe_one(pack: Path, case: Case) -> Observation:
    engine = _engines.setdefault(pack, Engine([pack], device="cpu"))
    study = case.make()
    return compare(case.key, study, analyse_study(engine, "demo-head", study))


def _path(folder: Path, case: Case | Observation) -> Path:
    return folder / f"{case.key}.json"


def _save(path: Path, one: Observation) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(dataclasses.asdict(one)), encoding="utf-8")
    temporary.replace(path)


def _load(path: Path) -> Observation:
    data = json.loads(path.read_text(encoding="utf-8"))
    places = {
        label: None if place is None else Place(**place) for label, place in data["places"].items()
    }
    return Observation(**{**data, "places": places})

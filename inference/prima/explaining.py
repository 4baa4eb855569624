"""Grounds the findings of an analysed study by LIME: where in which series they were seen."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
import torch
from torch import Tensor

from inference.explain import grounding, lime
from inference.explain.options import ExplainOptions, Progress
from inference.findings import LIME, Finding, Findings, Grounding
from inference.manifest import HeadKind, Label
from inference.prima.analyse import run
from inference.prima.heads import HeadOutputs
from inference.prima.lime import Explanation, Read, Subject, explain
from inference.prima.loading import LoadedPack
from inference.prima.preparation import prepare
from inference.prima.series import PrimaSeries
from inference.study import StudyInput

log = structlog.get_logger(__name__)

TIMING = "explain"


@dataclass(frozen=True)
class Wanted:
    """Places of the outputs to explain among those of each head.

    Attributes:
        diagnoses: places of labels.
        referrals: places of labels.
        levels: places of priority levels.
    """

    diagnoses: Sequence[int] = ()
    referrals: Sequence[int] = ()
    levels: Sequence[int] = ()

    def read(self, outputs: HeadOutputs) -> Tensor:
        """Those outputs side by side, in the order of the fields: [M, L]."""
        chosen = (
            (outputs.diagnoses, self.diagnoses),
            (outputs.referral, self.referrals),
            (outputs.priority, self.levels),
        )
        return torch.cat([said[:, list(at)] for said, at in chosen if said is not None and at], 1)


def explain_findings(
    study: StudyInput,
    pack: LoadedPack,
    findings: Findings,
    options: ExplainOptions,
    tell: Progress = lambda _text: None,
    scale: float = 1.0,
) -> Findings:
    """The findings of `analyse` with a grounding for those that are present and have a place.

    A finding is left without where the fit predicts nothing.

    Args:
        study: the files that were analysed.
        pack: from `loading.load`.
        findings: what was found; its own thresholds decide what is present.
        options: what it may cost.
        tell: called with a short text at every step; what it raises ends the explanation.
        scale: share of the usual memory.
    """
    started = time.monotonic()
    labels = _chosen(pack.labels(HeadKind.DIAGNOSES), findings, options)
    places: Mapping[str, Grounding] = {}
    if labels:
        places = _places(study, pack, labels, options, tell, scale)
    found = tuple(
        dataclasses.replace(one, grounding=places.get(one.label, one.grounding))
        for one in findings.findings
    )
    timings = {**findings.timings_s, TIMING: round(time.monotonic() - started, 3)}
    return dataclasses.replace(findings, findings=found, timings_s=timings)


def _chosen(
    labels: Sequence[Label], findings: Findings, options: ExplainOptions
) -> dict[int, Label]:
    """Labels to explain by their place in the head: present and localized, highest score first."""
    place = {label.id: number for number, label in enumerate(labels)}
    present = [
        f for f in findings.positives if f.label in place and labels[place[f.label]].localized
    ]
    present.sort(key=_margin, reverse=True)
    return {place[f.label]: labels[place[f.label]] for f in present[: options.findings or None]}


def _margin(finding: Finding) -> float:
    return finding.score if finding.score is not None else finding.probability - finding.threshold


def _places(
    study: StudyInput,
    pack: LoadedPack,
    labels: Mapping[int, Label],
    options: ExplainOptions,
    tell: Progress,
    scale: float,
) -> dict[str, Grounding]:
    prepared = prepare(study, tell)
    vectors = run(prepared, pack.tokenizer, pack.model, tell, scale)
    given = [series for series in prepared.series if len(series.kept)]
    read: Read = Wanted(diagnoses=tuple(labels)).read
    explained = explain(
        pack.model,
        Subject(vectors.series, vectors.vectors, prepared.description),
        read,
        options,
        _seeds(study, pack, given),
        tell,
        scale,
    )
    found = {}
    for column, label in enumerate(labels.values()):
        place = ground(given, explained, column, label.saliency_threshold)
        if place is not None:
            found[label.id] = place
    _report(explained, list(labels.values()), found)
    return found


def ground(
    series: Sequence[PrimaSeries],
    explained: Sequence[Explanation],
    column: int,
    threshold: float,
) -> Grounding | None:
    """Where an output's evidence lies: in the series whose fitted evidence weighs most.

    Only what speaks for the output counts, and a series as much as its fit holds. None where no
    fit holds, or where no such series has a place in the source.
    """
    spans, weights, fits = [], [], []
    start = 0
    for one in explained:
        source, fit = series[one.series].source, float(one.held_out_r2[column])
        if source is None or fit <= 0:
            continue
        given = series[one.series]
        spans.append(
            grounding.TokenSpan(
                source, given.grid_coords, given.patches.grid, given.grid_to_patient, (start,)
            )
        )
        weights.append(np.maximum(one.importance[:, column], 0) * fit)
        fits.append((source.series_uid, fit))
        start += len(weights[-1])
    if not weights:
        return None
    place = grounding.ground(np.concatenate(weights).astype(np.float32), spans, threshold)
    if place is None:
        return None
    fit = max(fit for uid, fit in fits if uid == place.series_uid)
    return dataclasses.replace(place, method=LIME, fit=round(fit, 3))


def _seeds(
    study: StudyInput, pack: LoadedPack, series: Sequence[PrimaSeries]
) -> Callable[[int], int]:
    digest = pack.manifest.ref.digest

    def seed(number: int) -> int:
        return lime.seed_of(study.study_uid, digest, series[number].series_uid, str(number))

    return seed


def _report(
    explained: Sequence[Explanation], labels: Sequence[Label], found: Mapping[str, Grounding]
) -> None:
    for one in explained:
        log.info(
            "series_explained",
            index=one.series,
            count=one.samples,
            seconds=round(one.seconds, 2),
        )
    if len(found) < len(labels):
        log.info("findings_not_grounded", missing=len(labels) - len(found))

"""One study through a NeuroVFM pack: volumes, tokens, embeddings, probabilities, places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from inference.errors import OutOfMemoryError, VolumeError
from inference.explain import grounding
from inference.findings import Finding, Findings, Grounding, SeriesReport, Status
from inference.neurovfm import batching, weights
from inference.neurovfm.heads import HeadOutput
from inference.neurovfm.loading import LoadedPack
from inference.neurovfm.preprocess import PreparedVolume, preprocess_volume
from inference.packs import Head, Label
from inference.stopwatch import Stopwatch
from inference.study import SeriesInput, StudyInput
from inference.volumes import SeriesVolumes, Volume, read_series
from inference.volumes.model_grid import model_grid

Progress = Callable[[str], None]
NEAR = 0.5
"""Findings from this share of their threshold on are grounded too: a reader may want to look."""


@dataclass(eq=False)
class _Gathered:
    """What the series of a study gave, in order."""

    volumes: list[PreparedVolume] = field(default_factory=list)
    sources: list[grounding.Source] = field(default_factory=list)
    reports: list[SeriesReport] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Why eligible series are not, or not wholly, part of the answer."""


def analyse(
    study: StudyInput,
    pack: LoadedPack,
    device: torch.device,
    progress: Progress | None = None,
    scale: float = 1.0,
) -> Findings:
    """Analyse all eligible series of a study together; every label of the head is reported.

    Args:
        study: the files.
        pack: from `loading.load`.
        device: where the pack was loaded.
        progress: called with a short text at every step.
        scale: share of the usual token budget, for a device with little memory left.

    Raises:
        OutOfMemoryError: not even the smallest batch fits.
    """
    tell = progress or (lambda _: None)
    head = pack.manifest.head_for(study.modality)
    if head is None:
        return _not_attempted(study, pack, _Gathered(), f"the pack does not read {study.modality}")
    clock = Stopwatch()
    gathered = _gather(study, pack, tell)
    clock.lap("read")
    if not gathered.volumes:
        return _not_attempted(study, pack, gathered, _why_nothing(gathered))
    tell(f"analysing {sum(v.token_count for v in gathered.volumes)} tokens")
    output = _run(pack, head, gathered, device, scale)
    clock.lap("encode")
    findings = _findings(pack, head, gathered, output)
    clock.lap("grounding")
    return Findings(
        study_uid=study.study_uid,
        status=Status.PARTIAL if gathered.problems else Status.SUCCEEDED,
        pack=pack.manifest.ref,
        findings=findings,
        series=tuple(gathered.reports),
        reason="; ".join(gathered.problems),
        timings_s=clock.laps,
        device=device.type,
    )


def _gather(study: StudyInput, pack: LoadedPack, tell: Progress) -> _Gathered:
    """Read and tokenise series by series; voxels are let go as soon as they are tokens."""
    gathered = _Gathered()
    for number, series in enumerate(study.series, start=1):
        tell(f"reading series {number} of {len(study.series)}")
        read = read_series(series, modality=study.modality)
        _take(series, read, pack, gathered)
    return gathered


def _take(series: SeriesInput, read: SeriesVolumes, pack: LoadedPack, gathered: _Gathered) -> None:
    number = len(gathered.reports) + 1
    warnings, refusals, slices = list(read.warnings), [], 0
    for volume in read.volumes:
        try:
            prepared = _prepare(volume, pack)
        except VolumeError as error:
            refusals.append(f"{volume.label}: {error}" if volume.label else str(error))
            continue
        gathered.volumes.append(prepared)
        gathered.sources.append(grounding.Source.of(series.series_uid, volume))
        slices += len(volume.frames)
    used = slices > 0
    reason = "" if used else read.skipped_reason or "; ".join(dict.fromkeys(refusals))
    if read.eligible and not used:
        gathered.problems.append(f"series {number} not read: {reason}")
    elif read.eligible and (refusals or not read.complete):
        gathered.problems.append(f"series {number} incomplete: {'; '.join(warnings + refusals)}")
    gathered.reports.append(
        SeriesReport(
            series_uid=series.series_uid,
            modality=series.modality,
            description=series.description,
            used=used,
            reason=reason,
            warnings=(*warnings, *(refusals if used else ())),
            slices=slices,
        )
    )


def _prepare(volume: Volume, pack: LoadedPack) -> PreparedVolume:
    grid = model_grid(volume)
    prepared = preprocess_volume(
        grid.array, grid.affine, volume.modality, spacing_mm=grid.spacing_mm
    )
    position = pack.encoder.model.config.position
    if position is not None and any(
        n > limit for n, limit in zip(prepared.grid, position.limits, strict=True)
    ):
        raise VolumeError(f"larger than the model's field of {list(position.limits)} tokens")
    return prepared


@torch.inference_mode()
def _run(
    pack: LoadedPack, head: Head, gathered: _Gathered, device: torch.device, scale: float
) -> HeadOutput:
    """Embeddings of all series within the token budget, then the head over the whole study."""
    packed = batching.pack([part for volume in gathered.volumes for part in volume.series])
    usual = batching.CUDA_TOKEN_BUDGET if device.type == "cuda" else batching.CPU_TOKEN_BUDGET
    amp = device.type == "cuda"
    embedded = batching.embed(
        pack.encoder.model,
        packed,
        device=device,
        stats=pack.encoder.stats,
        use_amp=amp,
        token_budget=max(1, int(usual * scale)),
    )
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            return _on_host(pack.heads[head.name].model(embedded, torch.tensor([0, len(embedded)])))
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            "the head does not fit the device's memory beside the study's embeddings"
        ) from error


def _on_host(output: HeadOutput) -> HeadOutput:
    def host(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.float().cpu()

    return HeadOutput(
        logits=output.logits.float().cpu(),
        attention=output.attention.float().cpu(),
        patch_logits=host(output.patch_logits),
    )


def _findings(
    pack: LoadedPack, head: Head, gathered: _Gathered, output: HeadOutput
) -> tuple[Finding, ...]:
    spans = _spans(gathered)
    signs = _signs(pack.heads[head.name], len(head.labels))
    probabilities = output.probabilities[0].tolist()
    found = []
    for column, (label, probability) in enumerate(zip(head.labels, probabilities, strict=True)):
        place = None
        if label.localized and probability > label.threshold * NEAR:
            weight = _evidence(output, column, signs[column])
            place = grounding.ground(weight, spans, label.saliency_threshold)
        found.append(_finding(label, probability, place))
    return tuple(found)


def _finding(label: Label, probability: float, place: Grounding | None) -> Finding:
    return Finding(
        label=label.id,
        display=label.display,
        code=label.code,
        acuity=label.acuity,
        probability=probability,
        threshold=label.threshold,
        site=label.site,
        grounding=place,
    )


def _evidence(output: HeadOutput, column: int, sign: float) -> grounding.Vector:
    attention = output.attention[:, min(column, output.attention.shape[1] - 1)]
    logits = output.patch_logits
    patch = None if logits is None else logits[:, min(column, logits.shape[1] - 1)].numpy()
    return grounding.evidence(attention.numpy(), patch, sign)


def _spans(gathered: _Gathered) -> list[grounding.TokenSpan]:
    """Where each volume's tokens stand in the study's sequence."""
    spans, start = [], 0
    for volume, source in zip(gathered.volumes, gathered.sources, strict=True):
        starts = []
        for part in volume.series:
            starts.append(start)
            start += len(part.tokens)
        first = volume.series[0]
        spans.append(
            grounding.TokenSpan(
                source, first.coords, first.grid, volume.grid_to_patient, tuple(starts)
            )
        )
    return spans


def _signs(head: weights.LoadedHead, labels: int) -> Sequence[float]:
    """Sign of the scale that turns a label's token logits into its study logit."""
    scale = getattr(head.model, "output_scale", None)
    if not isinstance(scale, Tensor):
        return [1.0] * labels
    signs: list[float] = np.sign(scale.detach().float().cpu().numpy()).tolist()
    return signs


def _not_attempted(
    study: StudyInput, pack: LoadedPack, gathered: _Gathered, reason: str
) -> Findings:
    return Findings(
        study_uid=study.study_uid,
        status=Status.NOT_ATTEMPTED,
        pack=pack.manifest.ref,
        series=tuple(gathered.reports),
        reason=reason,
    )


def _why_nothing(gathered: _Gathered) -> str:
    reasons = dict.fromkeys(report.reason for report in gathered.reports)
    return f"no usable series: {'; '.join(reasons)}" if reasons else "the study has no series"

"""One study through a Prima pack: series, tokens, vectors, scores, referral and priority."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.errors import NoVolumeError
from inference.findings import DIAGNOSIS, REFERRAL, Finding, Findings, ModelPriority, Status
from inference.manifest import HeadKind, Label
from inference.prima.heads import HeadOutputs
from inference.prima.hiervit import TOKEN_BUDGET
from inference.prima.loading import LoadedPack, logit
from inference.prima.model import EncodedSeries, PrimaModel
from inference.prima.preparation import prepare
from inference.prima.series import PrimaSeries, PrimaStudy
from inference.prima.vqvae import Tokenizer
from inference.stopwatch import Stopwatch
from inference.study import StudyInput

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class StudyVectors:
    """A study on its way through the model: what an explanation starts from.

    Attributes:
        series: encoded tokens of each series, on the host.
        vectors: [S, D], one a series, on the device.
        embedding: [E], of the study, on the device.
    """

    series: tuple[EncodedSeries, ...]
    vectors: Tensor
    embedding: Tensor


def analyse(
    study: StudyInput,
    pack: LoadedPack,
    device: torch.device,
    progress: Progress | None = None,
    scale: float = 1.0,
) -> Findings:
    """Analyse all readable series of a study together; every label is reported.

    Args:
        study: the files.
        pack: from `loading.load`.
        device: where the pack was loaded.
        progress: called with a short text at every step.
        scale: share of the usual memory, for a device with little left.

    Raises:
        OutOfMemoryError: not even the smallest batch fits.
    """
    tell = progress or (lambda _: None)
    if study.modality != "MR":
        return _not_attempted(study, pack, PrimaStudy(()), f"Prima does not read {study.modality}")
    clock = Stopwatch()
    prepared = prepare(study, progress)
    clock.lap("read")
    if not any(len(series.kept) for series in prepared.series):
        reasons = dict.fromkeys(item.reason for item in prepared.skipped)
        why = f"no usable series: {'; '.join(reasons)}" if reasons else "the study has no series"
        return _not_attempted(study, pack, prepared, why)
    found = run(prepared, pack.tokenizer, pack.model, tell, scale)
    clock.lap("encode")
    outputs = pack.model.heads(found.embedding)
    clock.lap("heads")
    return Findings(
        study_uid=study.study_uid,
        status=Status.PARTIAL if prepared.problems else Status.SUCCEEDED,
        pack=pack.manifest.ref,
        findings=findings(pack, outputs),
        series=prepared.reports,
        reason="; ".join(prepared.problems),
        timings_s=clock.laps,
        device=device.type,
        model_priority=model_priority(pack, outputs),
    )


def run(
    study: PrimaStudy,
    tokenizer: Tokenizer,
    model: PrimaModel,
    tell: Progress | None = None,
    scale: float = 1.0,
) -> StudyVectors:
    """Tokens, series vectors and embedding of a prepared study; series without tokens are left out.

    Raises:
        NoVolumeError: no series has tokens.
        OutOfMemoryError: not even the smallest batch fits.
    """
    tell = tell or (lambda _: None)
    given = [series for series in study.series if len(series.kept)]
    if not given:
        raise NoVolumeError("no series of the study has a token above the foreground threshold")
    encoded = []
    for number, series in enumerate(given, start=1):
        tell(f"encoding series {number} of {len(given)}")
        encoded.append(encode(series, tokenizer, scale))
    tell(f"analysing {study.token_count} tokens")
    vectors = model.encode_all(encoded, max(1, int(TOKEN_BUDGET * scale)))
    embedding = model.encode_study(vectors, study.description)
    return StudyVectors(tuple(encoded), vectors, embedding)


def encode(series: PrimaSeries, tokenizer: Tokenizer, scale: float = 1.0) -> EncodedSeries:
    """A series' kept tokens through the tokenizer, each once however often it stands there.

    The reference encodes every token of the volume before it drops the background; here only those
    that the model will see are read and encoded.
    """
    numbers, places = series.distinct
    blocks = torch.from_numpy(series.patches.gather(numbers))
    latents = tokenizer.encode_thin(blocks, series.axis, scale).cpu()
    return EncodedSeries(
        latents=latents[torch.from_numpy(places)],
        coords=torch.from_numpy(series.coords),
        axis=series.axis,
        name=series.name,
    )


def findings(pack: LoadedPack, outputs: HeadOutputs) -> tuple[Finding, ...]:
    """All diagnoses, then all referrals, in the order of the heads."""
    diagnoses = _of_kind(pack.labels(HeadKind.DIAGNOSES), outputs.diagnoses, DIAGNOSIS)
    return diagnoses + _of_kind(pack.labels(HeadKind.REFERRAL), outputs.referral, REFERRAL)


def model_priority(pack: LoadedPack, outputs: HeadOutputs) -> ModelPriority | None:
    """The priority head's vote, where the pack has one."""
    head = pack.manifest.head_for("MR", HeadKind.PRIORITY)
    if head is None or outputs.priority is None:
        return None
    return ModelPriority(head.levels, tuple(outputs.priority.tolist()))


def _of_kind(labels: Sequence[Label], logits: Tensor | None, kind: str) -> tuple[Finding, ...]:
    if logits is None:
        return ()
    pairs = zip(labels, logits.double().tolist(), strict=True)
    return tuple(_finding(label, value, kind) for label, value in pairs)


def _finding(label: Label, value: float, kind: str) -> Finding:
    return Finding(
        label=label.id,
        display=label.display,
        code=label.code,
        acuity=label.acuity,
        probability=torch.tensor(value, dtype=torch.float64).sigmoid().item(),
        threshold=label.threshold,
        site=label.site,
        score=value - logit(label.threshold),
        kind=kind,
    )


def _not_attempted(
    study: StudyInput, pack: LoadedPack, prepared: PrimaStudy, reason: str
) -> Findings:
    return Findings(
        study_uid=study.study_uid,
        status=Status.NOT_ATTEMPTED,
        pack=pack.manifest.ref,
        series=prepared.reports,
        reason=reason,
    )

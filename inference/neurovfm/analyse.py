"""Studies through a NeuroVFM pack: volumes, tokens, embeddings, probabilities, places.

Several studies share the encoder's passes: attention never crosses series, so their series lie end
to end up to the token budget, and each study's head reads its own part of the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import structlog
import torch
from torch import Tensor

from inference import devices
from inference.errors import OutOfMemoryError, PackError
from inference.explain import grounding
from inference.findings import Finding, Findings, Grounding, Status
from inference.neurovfm import batching, weights
from inference.neurovfm.gathering import Gathered, gather
from inference.neurovfm.heads import HeadOutput
from inference.neurovfm.loading import LoadedPack
from inference.packs import Head, Label
from inference.stopwatch import Stopwatch
from inference.study import StudyInput

log = structlog.get_logger(__name__)

Progress = Callable[[str], None]
Outcome = Findings | Exception
T = TypeVar("T")
NEAR = 0.5
"""Findings from this share of their threshold on are grounded too: a reader may want to look."""


@dataclass(eq=False)
class _Read:
    """A study that has something to analyse, between reading and encoding."""

    index: int
    study: StudyInput
    head: Head
    gathered: Gathered
    clock: Stopwatch


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
    found = _read(0, study, pack, tell)
    if isinstance(found, Findings):
        return found
    tell(f"analysing {found.gathered.token_count} tokens")
    (findings,) = _answer([found], pack, device, scale)
    return findings


def analyse_many(
    studies: Sequence[StudyInput],
    pack: LoadedPack,
    device: torch.device,
    progress: Progress | None = None,
    scale: float = 1.0,
) -> list[Outcome]:
    """Analyse studies in shared encoder passes; one outcome a study, in order.

    Studies are read until their tokens fill the budget, then encoded and let go, so memory follows
    the budget and not the number of studies. A study that cannot be analysed has its exception as
    outcome and costs the others nothing.

    Raises:
        PackError: the pack itself is at fault.
        Exception: the device is broken (`devices.is_broken`).
    """
    tell = progress or (lambda _: None)
    outcomes: dict[int, Outcome] = {}
    waiting: list[_Read] = []
    for index, study in enumerate(studies):
        tell(f"reading study {index + 1} of {len(studies)}")
        found = _guarded(partial(_read, index, study, pack, tell))
        if not isinstance(found, _Read):
            outcomes[index] = found
            continue
        waiting.append(found)
        if sum(one.gathered.token_count for one in waiting) >= _budget(device, scale):
            outcomes |= _together(waiting, pack, device, tell, scale)
            waiting = []
    outcomes |= _together(waiting, pack, device, tell, scale)
    return [outcomes[index] for index in range(len(studies))]


def _read(index: int, study: StudyInput, pack: LoadedPack, tell: Progress) -> _Read | Findings:
    """A study as tokens, or why there are none."""
    head = pack.manifest.head_for(study.modality)
    if head is None:
        reason = f"the pack does not read {study.modality}"
        return _not_attempted(study, pack, Gathered(), reason)
    clock = Stopwatch()
    gathered = gather(study, pack, tell)
    clock.lap("read")
    if not gathered.volumes:
        return _not_attempted(study, pack, gathered, gathered.why_nothing)
    return _Read(index, study, head, gathered, clock)


def _together(
    reads: Sequence[_Read], pack: LoadedPack, device: torch.device, tell: Progress, scale: float
) -> dict[int, Outcome]:
    """Answers of studies encoded together; where that fails, each alone, so one fails alone."""
    if not reads:
        return {}
    tokens = sum(one.gathered.token_count for one in reads)
    tell(f"analysing {tokens} tokens of {len(reads)} studies")
    found = _guarded(partial(_answer, reads, pack, device, scale))
    if not isinstance(found, Exception):
        return {one.index: findings for one, findings in zip(reads, found, strict=True)}
    if len(reads) == 1:
        return {reads[0].index: found}
    log.warning("studies_analysed_singly", count=len(reads), error=type(found).__name__)
    devices.release_memory(device)
    singly: dict[int, Outcome] = {}
    for one in reads:
        singly |= _together([one], pack, device, tell, scale)
    return singly


def _guarded(work: Callable[[], T]) -> T | Exception:
    """What `work` gives, or the error that concerns this piece of work only."""
    try:
        return work()
    except PackError:
        raise
    except Exception as error:
        if devices.is_broken(error):
            raise
        return error


def _answer(
    reads: Sequence[_Read], pack: LoadedPack, device: torch.device, scale: float
) -> list[Findings]:
    """Encode the series of all studies, then read each study with its head."""
    encoding = Stopwatch()
    embedded = _embed(reads, pack, device, scale)
    encoding.lap("encode")
    sizes = [one.gathered.token_count for one in reads]
    found = []
    for one, tokens, size in zip(reads, torch.split(embedded, sizes), sizes, strict=True):
        one.clock.restart()
        output = _classify(pack, one.head, tokens, device)
        findings = _findings(pack, one.head, one.gathered, output)
        one.clock.lap("grounding")
        share = encoding.laps["encode"] * size / max(sum(sizes), 1)
        found.append(_whole(one, pack, findings, share, device))
    return found


def _whole(
    one: _Read,
    pack: LoadedPack,
    findings: tuple[Finding, ...],
    encode_s: float,
    device: torch.device,
) -> Findings:
    gathered = one.gathered
    return Findings(
        study_uid=one.study.study_uid,
        status=Status.PARTIAL if gathered.problems else Status.SUCCEEDED,
        pack=pack.manifest.ref,
        findings=findings,
        series=tuple(gathered.reports),
        reason="; ".join(gathered.problems),
        timings_s={**one.clock.laps, "encode": round(encode_s, 3)},
        device=device.type,
    )


def _budget(device: torch.device, scale: float) -> int:
    usual = batching.CUDA_TOKEN_BUDGET if device.type == "cuda" else batching.CPU_TOKEN_BUDGET
    return max(1, int(usual * scale))


@torch.inference_mode()
def _embed(reads: Sequence[_Read], pack: LoadedPack, device: torch.device, scale: float) -> Tensor:
    """Embeddings of all series of all studies, within the token budget."""
    return batching.embed(
        pack.encoder.model,
        batching.pack([part for one in reads for part in one.gathered.parts]),
        device=device,
        stats=pack.encoder.stats,
        use_amp=device.type == "cuda",
        token_budget=_budget(device, scale),
    )


@torch.inference_mode()
def _classify(pack: LoadedPack, head: Head, tokens: Tensor, device: torch.device) -> HeadOutput:
    """The head over the embeddings of one study."""
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return _on_host(pack.heads[head.name].model(tokens, torch.tensor([0, len(tokens)])))
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
    pack: LoadedPack, head: Head, gathered: Gathered, output: HeadOutput
) -> tuple[Finding, ...]:
    spans = gathered.spans
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


def _signs(head: weights.LoadedHead, labels: int) -> Sequence[float]:
    """Sign of the scale that turns a label's token logits into its study logit."""
    scale = getattr(head.model, "output_scale", None)
    if not isinstance(scale, Tensor):
        return [1.0] * labels
    signs: list[float] = np.sign(scale.detach().float().cpu().numpy()).tolist()
    return signs


def _not_attempted(
    study: StudyInput, pack: LoadedPack, gathered: Gathered, reason: str
) -> Findings:
    return Findings(
        study_uid=study.study_uid,
        status=Status.NOT_ATTEMPTED,
        pack=pack.manifest.ref,
        series=tuple(gathered.reports),
        reason=reason,
    )

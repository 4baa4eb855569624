"""The training loop: both modalities together, on two CPU threads, seeded."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import structlog
import torch
from torch import nn

from inference.neurovfm.heads import HeadOutput
from inference.neurovfm.weights import round_attention
from training.demo_pack import batches
from training.demo_pack.batches import Augmentation, Batch, make_batch
from training.demo_pack.cache import CachedStudy
from training.demo_pack.network import MODALITIES, DemoModel, boundaries, build_model
from training.demo_pack.objective import Loss, objective

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Schedule:
    """Length and step sizes of the training.

    Attributes:
        steps: optimizer steps.
        studies: of each modality in every step.
        average: decay of the running average of the weights, which is what is kept.
        dropout: whether it is on; off for the last polish.
    """

    steps: int
    studies: Mapping[str, int] = field(default_factory=lambda: {"CT": 4, "MR": 6})
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    warm_up: int = 40
    clip: float = 1.0
    average: float = 0.99
    dropout: bool = True


def train(
    studies: Sequence[CachedStudy], stages: Sequence[Schedule], seed: int, threads: int = 1
) -> DemoModel:
    """Train a fresh model on cached studies, stage after stage, and return its averaged weights.

    The same studies, stages, seed and number of threads give the same model on the same machine.
    """
    torch.set_num_threads(threads)
    model = build_model(seed)
    rng = np.random.default_rng(seed)
    whiten_embedding(model, studies, rng)
    for number, schedule in enumerate(stages, start=1):
        log.info("training_stage", stage=number, of=len(stages), steps=schedule.steps)
        model = continue_training(model, studies, schedule, rng)
        rng = np.random.default_rng(seed + number)
    return model


def continue_training(
    model: DemoModel,
    studies: Sequence[CachedStudy],
    schedule: Schedule,
    rng: np.random.Generator,
) -> DemoModel:
    """One stage: a new optimizer, from a model to the average of its weights, as it will be run."""
    average = copy.deepcopy(model)
    average.learning(active=False)
    model.learning(active=schedule.dropout)
    torch.manual_seed(int(rng.integers(2**31)))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    streams = {m: _shuffled([s for s in studies if s.modality == m], rng) for m in MODALITIES}
    started = time.monotonic()
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * _rate(step, schedule)
        drawn = [
            make_batch(
                [next(streams[m]) for _ in range(schedule.studies[m])], batches.TRAINING, rng
            )
            for m in MODALITIES
        ]
        losses = [objective_of(model, batch) for batch in drawn]
        optimizer.zero_grad()
        total = torch.stack([loss.total for loss in losses]).sum()
        total.backward()  # type: ignore[no-untyped-call]  # as torch ships it
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
        optimizer.step()
        _follow(average, model, min(schedule.average, step / (step + 10)))
        _report(step, schedule, losses, time.monotonic() - started)
    settle(average)
    return average


def settle(model: DemoModel) -> None:
    """Round the weights as the agent does on loading, so that what is tested is what will run."""
    encoder = model.encoder
    encoder.load_state_dict(round_attention(dict(encoder.state_dict())))


@torch.no_grad()
def whiten_embedding(
    model: DemoModel, studies: Sequence[CachedStudy], rng: np.random.Generator
) -> None:
    """Start the token projection at the principal components of the data, flattened but in order.

    A random projection of a smooth block sees little but its mean; with components of similar
    size edges and gradients are there from the first step.
    """
    drawn = [studies[int(i)] for i in rng.integers(len(studies), size=_WHITENING_STUDIES)]
    tokens = torch.cat([make_batch([s], Augmentation(keep_tokens=0.1), rng).tokens for s in drawn])
    mean = tokens.mean(dim=0)
    values, vectors = torch.linalg.eigh((tokens - mean).T @ (tokens - mean) / len(tokens))
    projection = model.encoder.get_submodule("token_embed.proj")
    if not isinstance(projection, nn.Linear):
        raise TypeError("the demo encoder embeds tokens by one linear layer")
    components = projection.out_features
    leading = values[-components:].clamp(min=1e-3)
    scale = leading.pow(-0.3) * leading.pow(0.4).mean().rsqrt()
    weight = (vectors[:, -components:] * scale).T
    projection.weight.copy_(weight)
    projection.bias.copy_(-weight @ mean)


_WHITENING_STUDIES = 40


def objective_of(model: DemoModel, batch: Batch) -> Loss:
    """Loss of one batch."""
    return objective(run(model, batch), batch)


def run(model: DemoModel, batch: Batch) -> HeadOutput:
    """Forward pass of one batch through the encoder and its modality's head."""
    embeddings = model.encoder(batch.tokens, batch.coords, boundaries(batch.series_lengths))
    output: HeadOutput = model.heads[batch.modality](embeddings, boundaries(batch.study_lengths))
    return output


def _shuffled(studies: Sequence[CachedStudy], rng: np.random.Generator) -> Iterator[CachedStudy]:
    """Endless epochs, each in a new order."""
    while True:
        for index in rng.permutation(len(studies)):
            yield studies[index]


def _rate(step: int, schedule: Schedule) -> float:
    """Linear warm-up, then half a cosine to a hundredth."""
    if step < schedule.warm_up:
        return (step + 1) / schedule.warm_up
    progress = (step - schedule.warm_up) / max(1, schedule.steps - schedule.warm_up)
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * progress))


@torch.no_grad()
def _follow(average: DemoModel, model: DemoModel, decay: float) -> None:
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1.0 - decay)


def _report(step: int, schedule: Schedule, losses: list[Loss], spent_s: float) -> None:
    if (step + 1) % 25 and step + 1 != schedule.steps:
        return
    log.info(
        "training_step",
        step=step + 1,
        of=schedule.steps,
        eta_s=round(spent_s / (step + 1) * (schedule.steps - step - 1)),
        **{
            f"{modality.lower()}_{part}": round(float(getattr(loss, part).detach()), 4)
            for modality, loss in zip(MODALITIES, losses, strict=True)
            for part in ("study", "token", "attention")
        },
    )

"""The pretraining run: cache in, encoder in the official layout out; resumable, by config."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from torch import nn

from inference.neurovfm.config import PRESETS
from inference.neurovfm.tokens import DEFAULT_STATS, Stats, Window, normalise
from training import runtime
from training.data.sampling import (
    Augmentation,
    Batching,
    Sampler,
    SeriesSample,
    prefetch,
    read_sample,
    vary,
)
from training.data.shards import Cache, CachedSeries, CachedStudy
from training.voljepa import monitor, sharding
from training.voljepa.masks import Grid, MaskConfig, SeriesMask, draw_masks
from training.voljepa.network import JepaBatch, PredictorConfig, VolJepa
from training.voljepa.schedules import CosineWarmup, Momentum
from training.voljepa.steps import JepaTrainer, make_optimizer

log = structlog.get_logger(__name__)

STRETCH = 1.25


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining run; the defaults are the published ones.

    Attributes:
        size: ``tiny`` ... ``huge``; or give `encoder`, an official {"which", "params"}.
        predictor: its size; None = as wide and deep as the encoder, at most 12 blocks.
        epochs: over the training studies.
        batching: series a step on each process.
        peak, start, final: learning rates.
        save_every: steps between checkpoints.
        sharding: ``ddp`` or ``fsdp``, when torchrun started several processes.
        checkpointing: compute activations again in the backward pass.
    """

    size: str = "base"
    encoder: dict[str, Any] | None = None
    predictor: PredictorConfig | None = None
    epochs: int = 100
    batching: Batching = field(default_factory=Batching)
    masks: MaskConfig = field(default_factory=MaskConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    peak: float = 3.75e-4
    start: float = 1e-4
    final: float = 1e-6
    warm_up: float = 0.1
    weight_decay: float = 0.05
    seed: int = 0
    save_every: int = 500
    device: str = "auto"
    precision: str = "auto"
    sharding: str = "ddp"
    checkpointing: bool = False
    stats: Stats = DEFAULT_STATS


def pretrain(
    cache: Cache, studies: Sequence[CachedStudy], config: PretrainConfig, out: Path
) -> Path:
    """Pretrain and write ``encoder/config.json`` and ``encoder/pytorch_model.bin``.

    A run that was stopped goes on from its last checkpoint in `out`.

    Returns:
        The folder of the encoder: the teacher's weights, as published.

    Raises:
        RunError: no study, no such device, a damaged checkpoint.
    """
    if not studies:
        raise runtime.RunError("no study to train on: the cache holds none of the training set")
    with runtime.take_place(config.device, config.precision) as place:
        batching = replace(config.batching, rank=place.rank, world=place.world)
        sampler = Sampler(studies, batching, config.seed)
        per_epoch = len(sampler.epoch(0))
        total = per_epoch * config.epochs
        runtime.seed_everything(config.seed)
        trainer, model = _trainer(config, total, place)
        state = runtime.load_checkpoint(out / "checkpoint.pt", place)
        if state is not None:
            _restore(trainer, model, state)
            log.info("training_resumed", step=trainer.step)
        reporter = runtime.Reporter(out, place, total, trainer.step)
        for batch in prefetch(_batches(cache, sampler, config, per_epoch, trainer.step, total)):
            _one_step(trainer, batch.to(place.device), reporter, place)
            if trainer.step % config.save_every == 0 or trainer.step == total:
                _save(trainer, model, out, place)
        reporter.close()
        if place.first:
            _export(model, config, out)
    return out / "encoder"


def encoder_config(config: PretrainConfig) -> dict[str, Any]:
    """The official {"which", "params"} of the run's encoder."""
    if config.encoder is not None:
        return config.encoder
    if config.size not in PRESETS:
        raise runtime.RunError(f"size {config.size!r} is unknown; one of {', '.join(PRESETS)}")
    width, _, _ = PRESETS[config.size]
    return {
        "which": config.size,
        "params": {
            "token_dim": 1024,
            "embed_layer_cf": {"which": "voxel", "params": {"embed_dim": width - 30}},
            "pos_emb_cf": {"which": "pe3d", "params": {"in_dim": width - 30, "d": 30}},
        },
    }


def collate(
    samples: Sequence[SeriesSample], masks: Sequence[SeriesMask | None], stats: Stats
) -> JepaBatch | None:
    """Pack masked series; those without a usable mask are left out. None = none is left."""
    tokens, coords, context, targets = [], [], [], []
    lengths: list[tuple[int, int, int]] = []
    offset = 0
    for sample, mask in zip(samples, masks, strict=True):
        if mask is None:
            continue
        cells = np.ravel_multi_index(tuple(sample.coords.T), sample.grid)
        rows = np.searchsorted(cells, mask.taking_part)
        tokens.append(normalise(sample.tokens[rows], Window(sample.window), stats))
        coords.append(sample.coords[rows])
        context.append(np.searchsorted(mask.taking_part, mask.context) + offset)
        targets.append(np.searchsorted(mask.taking_part, mask.targets) + offset)
        lengths.append((len(rows), len(mask.context), len(mask.targets)))
        offset += len(rows)
    if not lengths:
        return None
    edges = np.concatenate([np.zeros((1, 3), np.int64), np.cumsum(lengths, axis=0)])
    return JepaBatch(
        tokens=torch.from_numpy(np.concatenate(tokens).astype(np.float32)),
        coords=torch.from_numpy(np.concatenate(coords)),
        cu_seqlens=torch.from_numpy(edges[:, 0].copy()),
        context=torch.from_numpy(np.concatenate(context)),
        context_cu=torch.from_numpy(edges[:, 1].copy()),
        targets=torch.from_numpy(np.concatenate(targets)),
        targets_cu=torch.from_numpy(edges[:, 2].copy()),
    )


def make_batch(
    cache: Cache, series: Sequence[CachedSeries], config: PretrainConfig, call: int
) -> JepaBatch | None:
    """Read, vary and mask one batch; the same `call` gives the same batch."""
    rng = np.random.default_rng((config.seed, call))
    samples = [vary(read_sample(cache, one), config.augmentation, rng) for one in series]
    grids = [Grid(one.grid, one.foreground, one.mode) for one in samples]
    places = torch.Generator().manual_seed(int(rng.integers(2**62)))
    return collate(samples, draw_masks(grids, config.masks, call, places), config.stats)


def _batches(
    cache: Cache,
    sampler: Sampler,
    config: PretrainConfig,
    per_epoch: int,
    first: int,
    total: int,
) -> Iterator[JepaBatch]:
    """Batches from step `first` on; one whose masks all failed takes the next draw's."""
    for step in range(first, total):
        series = sampler.epoch(step // per_epoch)[step % per_epoch]
        for again in range(8):
            call = (step + again * total) * sampler.batching.world + sampler.batching.rank
            batch = make_batch(cache, series, config, call)
            if batch is not None:
                yield batch
                break
        else:
            raise runtime.RunError("eight draws gave no usable mask: are the volumes empty?")


def _trainer(
    config: PretrainConfig, total: int, place: runtime.Place
) -> tuple[JepaTrainer, VolJepa]:
    encoder = encoder_config(config)
    model = VolJepa(encoder, config.predictor or _like_encoder(encoder)).to(place.device)
    model.predictor.checkpointing = config.checkpointing
    model.train()
    wrapped = sharding.wrap(model, config.sharding, place)
    trainer = JepaTrainer(
        model=model,
        optimizer=make_optimizer(model, config.peak, config.weight_decay),
        rate=CosineWarmup(
            config.peak, config.start, config.final, total, config.warm_up, 0.5, STRETCH
        ),
        momentum=Momentum(total, stretch=STRETCH),
        loss_of=wrapped,
        autocast=place.dtype,
    )
    return trainer, model


def _like_encoder(encoder: dict[str, Any]) -> PredictorConfig:
    from inference.neurovfm.config import read_encoder_config

    read = read_encoder_config(encoder)
    head = read.embed_dim // read.num_heads
    return PredictorConfig(read.embed_dim, min(read.depth, 12), read.num_heads, head)


def _one_step(
    trainer: JepaTrainer, batch: JepaBatch, reporter: runtime.Reporter, place: runtime.Place
) -> None:
    number = trainer.step
    report = trainer.advance(batch)
    if not math.isfinite(report.loss):
        raise runtime.RunError(
            f"the loss is {report.loss} at step {number}; lower the rate or use precision fp32"
        )
    values = asdict(report)
    values["loss"] = runtime.mean_over_processes(report.loss, place)
    if number % monitor.EVERY == 0:
        values |= monitor.collapse(trainer.model, batch, trainer.autocast)
    reporter.step(number, values)


def _restore(trainer: JepaTrainer, model: nn.Module, state: dict[str, Any]) -> None:
    sharding.load_state(model, trainer.optimizer, state)
    trainer.step = state["step"]


def _save(trainer: JepaTrainer, model: nn.Module, out: Path, place: runtime.Place) -> None:
    state = sharding.full_state(model, trainer.optimizer)
    if place.first:
        runtime.save_checkpoint(out / "checkpoint.pt", {**state, "step": trainer.step})


def _export(model: VolJepa, config: PretrainConfig, out: Path) -> None:
    folder = out / "encoder"
    folder.mkdir(parents=True, exist_ok=True)
    state = runtime.load_checkpoint(out / "checkpoint.pt", runtime.Place(torch.device("cpu")))
    if state is None:
        raise runtime.RunError("no step was made: nothing to export")
    prefix = "teacher.vision_encoder."
    weights = {k.removeprefix(prefix): v for k, v in state["model"].items() if k.startswith(prefix)}
    torch.save({"state_dict": weights}, folder / "pytorch_model.bin")
    text = json.dumps(encoder_config(config), indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")

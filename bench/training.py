"""Vol-JEPA training: tokens a second, share of this machine's ceiling, and what a large run needs.

    python bench/training.py [--size base] [--series 2] [--tokens 1200] [--rounds 2] [--json FILE]
    python bench/training.py --scale [--mfu 0.35] [--peak-tflops 989] [--json FILE]

The first form measures whole optimizer steps (teacher, student, predictor, backward, AdamW) on
made-up series. Model FLOPs count matrix products and attention once forward and twice backward,
nothing that is computed again; the ceiling is the fastest large matrix product measured in the
same run. The second form computes storage, tokens and GPU-hours for 567 000 studies from
assumptions that it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from inference.neurovfm.config import PRESETS, read_encoder_config
from training.data.sampling import SeriesSample
from training.runtime import Place
from training.voljepa import recipe
from training.voljepa.masks import Grid, MaskConfig, draw_masks
from training.voljepa.network import JepaBatch
from training.voljepa.recipe import PretrainConfig

STEP_SHARES = {"teacher": 1.0, "student": 3.0, "predictor": 3.0}
"""Forward passes' worth of work: the teacher has no backward pass."""
TOKEN_BYTES = 1024 + 6


@dataclass(frozen=True)
class Scale:
    """Assumptions of a large run; those of the paper where it says, else stated as ours.

    Attributes:
        studies: of NeuroVFM's pretraining (arXiv 2511.18640).
        series: volumes of a study (the paper: 5.24 million); a CT volume counts once in an epoch.
        cached_views: views stored of a series (a CT has three windows, MR one; half and half).
        tokens: foreground tokens of a series.
        context, targets: share of a series' tokens that the student sees and must predict, about
            what the masks give in the first form.
        epochs: passes over the studies.
        mfu: share of the GPU's peak that training reaches.
        peak_tflops: of the GPU, dense bf16 (H100 SXM by its data sheet).
        latent_bytes: Prima's token cache, 256 half-precision values a token.
    """

    studies: int = 567_000
    series: float = 5_240_000 / 567_000
    cached_views: float = 2.0
    tokens: float = 1500.0
    context: float = 0.25
    targets: float = 0.75
    epochs: int = 100
    mfu: float = 0.35
    peak_tflops: float = 989.0
    latent_bytes: int = 512


def main() -> None:
    arguments = _arguments()
    made = _scale(arguments) if arguments.scale else _measure(arguments)
    for name, value in made.items():
        if not isinstance(value, dict):
            print(f"{name:<34} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(made, indent=1), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(PRESETS), default="base")
    parser.add_argument("--series", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1200, help="tokens of each series")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scale", action="store_true", help="compute, do not measure")
    parser.add_argument("--mfu", type=float, default=Scale.mfu)
    parser.add_argument("--peak-tflops", type=float, default=Scale.peak_tflops)
    parser.add_argument("--epochs", type=int, default=Scale.epochs)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


# --- measured -----------------------------------------------------------------------------------


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    from training import runtime

    with runtime.take_place(arguments.device) as place:
        config = PretrainConfig(size=arguments.size)
        trainer, _ = recipe._trainer(config, 100, place)  # noqa: SLF001 - the very one that trains
        batch = _batch(arguments.series, arguments.tokens, config).to(place.device)
        _step(trainer, batch, place)
        seconds = [_step(trainer, batch, place) for _ in range(arguments.rounds)]
        work = sum(flops(arguments.size, batch).values())
        ceiling = _ceiling(place)
    tokens, best = int(batch.cu_seqlens[-1]), statistics.median(seconds)
    return {
        "model": f"ViT-{arguments.size}, predictor alike",
        "device": torch.cuda.get_device_name() if place.device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "series a step": arguments.series,
        "tokens a step": tokens,
        "context tokens": len(batch.context),
        "target tokens": len(batch.targets),
        "seconds a step": round(best, 3),
        "tokens a second": round(tokens / best),
        "model TFLOP a step": round(work / 1e12, 3),
        "model TFLOP/s": round(work / best / 1e12, 4),
        "matrix-product ceiling, TFLOP/s": round(ceiling / 1e12, 4),
        "model-FLOP utilisation": f"{work / best / ceiling:.1%}",
        "machine": platform.machine(),
        "torch": torch.__version__,
    }


def flops(size: str, batch: JepaBatch) -> dict[str, float]:
    """Model FLOPs of one step: matrix products and attention scores."""
    config = read_encoder_config(recipe.encoder_config(PretrainConfig(size=size)))
    width, depth = config.embed_dim, config.depth

    def tower(edges: torch.Tensor, layers: int) -> float:
        lengths = edges.diff().double()
        return layers * (
            2 * 12 * width**2 * float(lengths.sum()) + 4 * width * float((lengths**2).sum())
        )

    joined = batch.context_cu + batch.targets_cu
    return {
        "teacher": STEP_SHARES["teacher"] * tower(batch.cu_seqlens, depth),
        "student": STEP_SHARES["student"] * tower(batch.context_cu, depth),
        "predictor": STEP_SHARES["predictor"] * tower(joined, min(depth, 12)),
    }


def _step(trainer: Any, batch: JepaBatch, place: Place) -> float:
    started = time.perf_counter()
    trainer.advance(batch)
    if place.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _batch(series: int, tokens: int, config: PretrainConfig) -> JepaBatch:
    depth = max(2, round(tokens / 100))
    grid = (depth, 10, 10)
    coords = np.argwhere(np.ones(grid, dtype=bool))
    rng = np.random.default_rng(0)
    values = rng.random((len(coords), 1024), dtype=np.float32)
    samples = [SeriesSample(values, coords, grid, "mri", "mri") for _ in range(series)]
    places = torch.Generator().manual_seed(0)
    grids = [Grid(grid, np.ones(len(coords), dtype=bool), "mri") for _ in range(series)]
    masks = draw_masks(grids, MaskConfig(), 0, places)
    batch = recipe.collate(samples, masks, config.stats)
    if batch is None:
        raise SystemExit("no usable mask: give more tokens")
    return batch


def _ceiling(place: Place) -> float:
    """The fastest of five large matrix products, FLOP/s, in the precision that trains."""
    size = 8192 if place.device.type == "cuda" else 2048
    a = torch.randn(size, size, device=place.device, dtype=place.dtype or torch.float32)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        a @ a
        if place.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return float(2 * size**3 / min(times))


# --- computed -----------------------------------------------------------------------------------


def _scale(arguments: argparse.Namespace) -> dict[str, Any]:
    given = Scale(mfu=arguments.mfu, peak_tflops=arguments.peak_tflops, epochs=arguments.epochs)
    return needs(given, arguments.size)


def needs(given: Scale, size: str) -> dict[str, Any]:
    """Storage, tokens and GPU-hours of a run."""
    series = given.studies * given.series
    shown = series * given.tokens
    edges = np.array([given.tokens, given.tokens * given.context, given.tokens * given.targets])
    whole, context, targets = (torch.tensor([0.0, float(n)]) for n in edges)
    one = JepaBatch(
        *([torch.empty(0)] * 2), whole, torch.empty(0), context, torch.empty(0), targets
    )
    per_token = sum(flops(size, one).values()) / given.tokens
    total = per_token * shown * given.epochs
    hours = total / (given.mfu * given.peak_tflops * 1e12) / 3600
    return {
        "studies": f"{given.studies:,}",
        "series": f"{series:,.0f}",
        "tokens of an epoch": f"{shown / 1e9:,.1f} billion",
        "token cache": f"{shown * given.cached_views * TOKEN_BYTES / 1e12:,.1f} TB",
        "Prima's latent cache": f"{shown * given.latent_bytes / 1e12:,.1f} TB",
        "model FLOP a token": f"{per_token / 1e9:,.2f} GFLOP (ViT-{size})",
        f"model FLOP of {given.epochs} epochs": f"{total / 1e21:,.2f} ZFLOP",
        f"GPU-hours at {given.mfu:.0%} of {given.peak_tflops:,.0f} TFLOP/s": f"{hours:,.0f}",
        "days on 8 GPUs": f"{hours / 8 / 24:,.1f}",
        "assumptions": asdict(given),
    }


if __name__ == "__main__":
    main()

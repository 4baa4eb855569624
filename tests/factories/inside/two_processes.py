"""Runs under torchrun: one forward and backward on each of two processes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from factories.training import TINY_ENCODER

from training import runtime
from training.data.shards import Cache
from training.voljepa import recipe, sharding
from training.voljepa.network import PredictorConfig, VolJepa
from training.voljepa.recipe import PretrainConfig

CONFIG = PretrainConfig(encoder=TINY_ENCODER, predictor=PredictorConfig(32, 1, 2, 16), seed=4)


def main(folder: Path, out: Path, how: str) -> None:
    """Write loss and gradients, as the first process sees them."""
    cache = Cache(folder)
    series = [s for study in cache.studies.values() for s in study.series]
    with runtime.take_place("cpu") as place:
        torch.manual_seed(0)
        model = VolJepa(TINY_ENCODER, CONFIG.predictor).train()
        wrapped = sharding.wrap(model, how, place)
        start = place.rank * 2
        batch = recipe.make_batch(cache, series[start : start + 2], CONFIG, call=start)
        loss = wrapped(batch)
        loss.backward()
        mean = runtime.mean_over_processes(float(loss.detach()), place)
        gradients = {}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                whole = getattr(parameter.grad, "full_tensor", lambda g=parameter.grad: g)()
                gradients[name] = whole.detach()
        if place.first:
            torch.save({"loss": mean, "gradients": gradients}, out / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

"""Teaches the series-name encoder which name belongs to which images, by contrast.

A transformer over a series' tokens and a character encoder over its name learn unit vectors that
agree. What is kept is the character encoder, which the main training begins with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.prima.model import EncodedSeries
from inference.prima.names import char_codes
from inference.prima.texts import TextEncoder
from inference.prima.token_rows import token_rows
from inference.prima.transformer import Vit, VitSize
from training import loop, runtime
from training.prima import cache, objectives
from training.prima.sampling import Dropout, show_series
from training.prima.sizes import TOKEN_WIDTH, Layers, NameSize
from training.runtime import Place

WEIGHTS, CONFIG = "series_names.pt", "series_names.json"


@dataclass(frozen=True)
class SeriesNamesRun:
    """A run; the defaults are the published ones where they are known.

    Attributes:
        layers, registers: the transformer over tokens.
        names: the character encoder.
        features: width of the vectors compared.
        series: in a step, on each process, of as many studies.
    """

    layers: Layers = field(default_factory=lambda: Layers(8, 16, 64, 1024))
    registers: int = 10
    names: NameSize = field(default_factory=NameSize)
    features: int = 128
    series: int = 64
    steps: int = 20_000
    rate: float = 1e-5
    weight_decay: float = 5e-4
    dropout: Dropout = field(default_factory=lambda: Dropout(names=0.0))
    seed: int = 0
    save_every: int = 500
    device: str = "auto"
    precision: str = "auto"


class NameLoss(nn.Module):
    """Series and their names as unit vectors, and how ill they agree."""

    def __init__(self, config: SeriesNamesRun, place: Place) -> None:
        super().__init__()
        layers = config.layers.sized(TOKEN_WIDTH)
        self.images = Vit(VitSize(layers, config.registers, config.features))
        self.names = TextEncoder(config.names.sized(config.features))
        self.temperature = nn.Parameter(torch.tensor([objectives.FIRST_TEMPERATURE]))
        self._place = place

    def forward(self, series: Sequence[EncodedSeries]) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch, and its unscaled value."""
        device = self.temperature.device
        rows = [
            token_rows(one.latents.to(device), one.coords.to(device), one.axis) for one in series
        ]
        codes = [torch.from_numpy(char_codes(one.name)) for one in series]
        images = loop.gather(functional.normalize(self.images(rows).float()), self._place)
        names = loop.gather(functional.normalize(self.names(codes).float()), self._place)
        plain, scaled = objectives.clip_objective(images, names, self.temperature)
        return scaled, {"unscaled": float(plain.detach())}


def train(folder: Path, studies: Sequence[str], config: SeriesNamesRun, out: Path) -> list[float]:
    """Train on a latent cache and write `series_names.pt`, the character encoder.

    Every step shows one series of each study it draws, so that equal names are rare in it.

    Returns:
        The loss of every step of this call.

    Raises:
        RunError: no such device, a damaged checkpoint.
        DataError: the cache holds none of the studies.
    """
    files = list(cache.present(folder, studies).values())
    with runtime.take_place(config.device, config.precision) as place:
        torch.manual_seed(config.seed)
        module = NameLoss(config, place).to(place.device)
        optimizer = torch.optim.Adam(
            module.parameters(), lr=config.rate, weight_decay=config.weight_decay
        )
        picks = loop.epochs(len(files), config.series, config.seed, place)

        def batch(step: int, rng: np.random.Generator) -> tuple[EncodedSeries, ...]:
            held = [cache.read_latents(files[i]) for i in picks(step)]
            chosen = [s.series[int(rng.integers(len(s.series)))] for s in held]
            return tuple(show_series(one, config.dropout, rng) for one in chosen)

        steps = loop.Steps(
            config.steps, lambda _: config.rate, config.seed, save_every=config.save_every
        )
        losses = loop.run(loop.Trained(module, optimizer), batch, steps, out, place)
        if place.first:
            state = {k: v.detach().cpu() for k, v in module.names.state_dict().items()}
            torch.save(state, out / WEIGHTS)
            about = {"names": asdict(config.names), "features": config.features}
            (out / CONFIG).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return losses

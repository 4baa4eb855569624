"""Trains the VQ-VAE on blocks of voxels; ends in the published layout: a bare state_dict.

L1 loss and commitment loss, Adam, a random permutation of the axes for each batch. The codebook
follows running means; on several processes their sums are joined, so that all hold one codebook.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from inference.prima.quantizer import Codebook
from inference.prima.vqvae import VQVAE
from inference.prima.vqvae_config import read_tokenizer_config
from training import loop, runtime
from training.prima import cache
from training.runtime import Place, RunError

PUBLISHED: Mapping[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 1,
    "num_channels": [256, 256],
    "num_res_channels": [256, 256],
    "num_res_layers": 2,
    "downsample_parameters": [[2, 4, 1, 1], [2, 2, 1, 0]],
    "upsample_parameters": [[2, 4, 1, 1, 0], [2, 2, 1, 0, 0]],
    "num_embeddings": 8192,
    "embedding_dim": 2,
}
WEIGHTS, CONFIG = "vqvae.pth", "tokenizer.json"


@dataclass(frozen=True)
class TokenizerRun:
    """A tokenizer's training; the defaults are the published ones.

    Attributes:
        tokenizer: the official `vqvae_config`.
        tokens: blocks in a step, on each process.
        files: studies that a step's blocks come from.
        steps: optimizer steps; the published checkpoint is of step 16 799.
    """

    tokenizer: Mapping[str, Any] = field(default_factory=lambda: PUBLISHED)
    tokens: int = 1600
    files: int = 16
    steps: int = 16_800
    rate: float = 1e-4
    seed: int = 0
    save_every: int = 500
    device: str = "auto"
    precision: str = "fp32"


class TokenizerLoss(nn.Module):
    """Reconstruction and commitment of a batch [N, 1, ...]."""

    def __init__(self, model: VQVAE, place: Place) -> None:
        super().__init__()
        self.model = model
        self._place = place

    def forward(self, blocks: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss, and its parts for the log."""
        book = self.model.quantizer.quantizer
        before = book.ema_cluster_size.clone(), book.ema_w.clone()
        restored, commitment = self.model(blocks)
        if self._place.world > 1 and self.training:
            join_codebooks(book, *before, self._place)
        reconstruction = functional.l1_loss(restored, blocks)
        values = {
            "l1": float(reconstruction.detach()),
            "commitment": float(commitment.detach()),
            "perplexity": float(self.model.quantizer.perplexity),
        }
        return reconstruction + commitment, values


def train(folder: Path, studies: Sequence[str], config: TokenizerRun, out: Path) -> list[float]:
    """Train on the studies of a block cache and write `vqvae.pth` and `tokenizer.json`.

    Returns:
        The loss of every step of this call.

    Raises:
        RunError: no such device, a damaged checkpoint.
        DataError: the cache holds none of the studies.
    """
    blocks = Blocks(list(cache.present(folder, studies).values()))
    with runtime.take_place(config.device, config.precision) as place:
        torch.manual_seed(config.seed)
        model = VQVAE(read_tokenizer_config(config.tokenizer)).to(place.device)
        learned = [p for p in model.parameters() if p.requires_grad]
        trained = loop.Trained(
            TokenizerLoss(model, place).train(), torch.optim.Adam(learned, lr=config.rate)
        )
        picks = loop.epochs(len(blocks.files), config.files, config.seed, place)

        def batch(step: int, rng: np.random.Generator) -> Tensor:
            found = blocks.draw(picks(step), config.tokens, rng)
            return permuted(found, rng).to(place.device)

        steps = loop.Steps(
            config.steps, lambda _: config.rate, config.seed, save_every=config.save_every
        )
        losses = loop.run(trained, batch, steps, out, place)
        if place.first:
            torch.save(_on_host(model), out / WEIGHTS)
            text = json.dumps({"vqvae_config": dict(config.tokenizer)}, indent=1)
            (out / CONFIG).write_text(text + "\n", encoding="utf-8")
    return losses


class Blocks:
    """Blocks of voxels of many studies, read when they are drawn."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = [file for file in files if cache.count_blocks(file)]
        if not self.files:
            raise RunError("the block cache holds no block")

    def draw(self, chosen: Sequence[int], count: int, rng: np.random.Generator) -> Tensor:
        """`count` blocks from these files, as evenly as they have them: [n, 4, 32, 32]."""
        parts = []
        edges = [0, *accumulate([count // len(chosen)] * (len(chosen) - 1)), count]
        for number, wanted in zip(chosen, np.diff(edges), strict=True):
            held = cache.count_blocks(self.files[number])
            rows = rng.choice(held, int(wanted), replace=bool(held < wanted))
            parts.append(cache.read_blocks(self.files[number], [int(r) for r in rows]))
        return torch.cat(parts)


def permuted(blocks: Tensor, rng: np.random.Generator) -> Tensor:
    """[N, 4, 32, 32] with the thin axis doubled and all axes in a random order: [N, 1, ...]."""
    doubled = blocks.repeat_interleave(2, dim=1).unsqueeze(1)
    z, y, x = (int(axis) + 2 for axis in rng.permutation(3))
    return doubled.permute(0, 1, z, y, x).contiguous()


@torch.no_grad()
def join_codebooks(book: Codebook, sizes: Tensor, sums: Tensor, place: Place) -> None:
    """The codebook as if one process had seen every process' batch.

    Args:
        book: moved by this process' batch.
        sizes: its running counts before.
        sums: its running sums before.
        place: this process.
    """
    keep = book.config.decay * (place.world - 1)
    for now, before in ((book.ema_cluster_size, sizes), (book.ema_w, sums)):
        distributed.all_reduce(now)
        now.sub_(before * keep)  # the old mean was counted once for each process
    total, epsilon = book.ema_cluster_size.sum(), book.config.epsilon
    smooth = (book.ema_cluster_size + epsilon) / (total + book.codes * epsilon)
    book.embedding.weight.copy_(book.ema_w / (smooth * total).unsqueeze(1))


def _on_host(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in model.state_dict().items()}

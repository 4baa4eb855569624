"""The demo model: a NeuroVFM-shaped encoder small enough to commit, and one head a modality."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inference.neurovfm.heads import ClassifyThenAggregate, build_head
from inference.neurovfm.model import VisionTransformer, build_encoder
from training.synthetic.labels import label_ids

MODALITIES = ("CT", "MR")
WIDTH = 96
ENCODER: dict[str, Any] = {
    "which": "vit",
    "params": {
        "embed_dim": WIDTH,
        "depth": 2,
        "num_heads": 4,
        "mlp_ratio": 3.0,
        "drop_rate": 0.1,
        "embed_layer_cf": {"which": "voxel", "params": {}},
        "pos_emb_cf": {"which": "pe3d", "params": {"d": 30, "concat": True}},
    },
}


def head_config(modality: str, outputs: int | None = None) -> dict[str, Any]:
    """Official layout of one head's config.json: every label has its own attention and evidence.

    `outputs` is the number of labels; all of the modality when None.
    """
    labels = outputs or len(label_ids(modality))
    return {
        "which": "classify_then_aggregate",
        "params": {
            "hidden_dim": 64,
            "drop_rate": 0.1,
            "W_out": labels,
            "mlp_hidden_dims": [64],
            "mlp_out_dim": labels,
            "use_gating": True,
            "use_norm": False,
            "use_output_bias_scale": True,
        },
    }


@dataclass(frozen=True)
class DemoModel:
    """Encoder and heads that are trained together; `heads` is by modality."""

    encoder: VisionTransformer
    heads: dict[str, ClassifyThenAggregate]

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters."""
        for module in self.modules():
            yield from module.parameters()

    def modules(self) -> tuple[nn.Module, ...]:
        """Encoder first, then the heads in the order of `MODALITIES`."""
        return (self.encoder, *(self.heads[m] for m in MODALITIES))

    def learning(self, active: bool) -> None:
        """Switch dropout on or off."""
        for module in self.modules():
            module.train(active)


def build_model(seed: int) -> DemoModel:
    """A fresh model; the same seed gives the same weights."""
    torch.manual_seed(seed)
    heads = {}
    for modality in MODALITIES:
        head = build_head(head_config(modality), WIDTH)
        if not isinstance(head, ClassifyThenAggregate):
            raise TypeError("the demo heads classify before they aggregate")
        heads[modality] = head
    return DemoModel(build_encoder(ENCODER), heads)


def boundaries(lengths: list[int]) -> Tensor:
    """Boundary vector of segments with these lengths, as the model takes it."""
    return torch.tensor([0, *lengths]).cumsum(0)

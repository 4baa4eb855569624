"""Which labels the pack ships: those that the validation studies show it can tell.

A label that a model cannot tell is worse than no label: it would raise false alarms on the worklist
page of the demo. What is left out is named, with its number, on the model card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.demo_pack.batches import make_batch
from training.demo_pack.cache import CachedStudy
from training.demo_pack.network import DemoModel
from training.demo_pack.train import run
from training.evaluation.metrics import auroc
from training.synthetic.labels import label_ids

MIN_AUROC = 0.9


@dataclass(frozen=True)
class Validated:
    """One label on the validation studies; `auroc` None where none of them has it."""

    label: str
    auroc: float | None

    @property
    def shipped(self) -> bool:
        """Whether the pack reports it."""
        return self.auroc is not None and self.auroc >= MIN_AUROC


@torch.inference_mode()
def validate(model: DemoModel, studies: Sequence[CachedStudy]) -> tuple[Validated, ...]:
    """Every label of one modality, in output order."""
    scores = np.stack([run(model, make_batch([s])).probabilities[0].numpy() for s in studies])
    truth = np.stack([s.labels for s in studies]).astype(bool)
    return tuple(
        Validated(label, auroc(truth[:, column], scores[:, column].astype(np.float64)))
        for column, label in enumerate(label_ids(studies[0].modality))
    )


def kept_rows(
    state: Mapping[str, Tensor], labels: Sequence[str], modality: str
) -> dict[str, Tensor]:
    """A head's weights with the outputs of `labels` only (rows of W, of the last layer, scales)."""
    rows = [label_ids(modality).index(label) for label in labels]
    layers = [int(key.split(".")[2]) for key in state if key.startswith("mlp.mlp.")]
    outputs = ("W.", "output_", f"mlp.mlp.{max(layers)}.")
    return {
        key: value[rows].contiguous() if key.startswith(outputs) else value.contiguous()
        for key, value in state.items()
    }

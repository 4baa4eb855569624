"""What the demo model is trained for: study labels, token evidence and where attention lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inference.neurovfm.heads import HeadOutput
from training.demo_pack.batches import Batch

_FLOOR = 1e-6


@dataclass(frozen=True)
class Loss:
    """The parts of the objective; each is a mean over labels."""

    study: Tensor
    token: Tensor
    attention: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimized."""
        return self.study + self.token + 0.2 * self.attention


def objective(output: HeadOutput, batch: Batch) -> Loss:
    """Loss of one head on one batch.

    Diffuse labels (no mask in any study) are learned from the study label alone.
    """
    if output.patch_logits is None:
        raise ValueError("the head gives no evidence per token; use classify_then_aggregate")
    study = functional.binary_cross_entropy_with_logits(output.logits, batch.labels)
    token = _token_loss(output.patch_logits, batch)
    return Loss(study, token, _attention_loss(output.attention, batch))


def _token_loss(patch_logits: Tensor, batch: Batch) -> Tensor:
    """Evidence of every token against its mask; positives and negatives weigh alike."""
    positive, negative = batch.targets == 1.0, batch.targets == 0.0
    # A study that is positive without a mask says nothing about single tokens.
    study = torch.repeat_interleave(batch.labels, torch.tensor(batch.study_lengths), dim=0)
    masked = _any_positive(positive, batch)
    negative &= (study == 0.0) | masked
    localized = masked.any(dim=0)
    raised = functional.softplus(-patch_logits) * positive
    lowered = functional.softplus(patch_logits) * negative
    per_label = raised.sum(0) / positive.sum(0).clamp(min=1) + 3.0 * lowered.sum(0) / negative.sum(
        0
    ).clamp(min=1)
    return (per_label * localized).sum() / localized.sum().clamp(min=1)


def _any_positive(positive: Tensor, batch: Batch) -> Tensor:
    """Per token and label: does this token's study hold any positive token?"""
    parts = torch.split(positive, batch.study_lengths)
    return torch.cat([part.any(dim=0, keepdim=True).expand_as(part) for part in parts])


def _attention_loss(attention: Tensor, batch: Batch) -> Tensor:
    """Negative log of the attention that falls inside the mask, over studies that have one."""
    inside = torch.split(attention * (batch.targets == 1.0), batch.study_lengths)
    masked = torch.split(batch.targets == 1.0, batch.study_lengths)
    mass = torch.stack([part.sum(dim=0) for part in inside])
    has_mask = torch.stack([part.any(dim=0) for part in masked])
    loss = -mass.clamp(min=_FLOOR).log() * has_mask
    return loss.sum() / has_mask.sum().clamp(min=1)

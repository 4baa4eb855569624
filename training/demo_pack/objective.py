"""What the demo model is trained for: study labels, token evidence and where attention lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inference.neurovfm.heads import HeadOutput
from training.demo_pack.batches import Batch

_FLOOR = 1e-8


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
    """Divergence of the attention from an even spread over the tokens inside the mask.

    Attention that settles on one token would classify as well, but show a reader a dot instead of
    the lesion.
    """
    total, count = attention.new_zeros(()), 0
    parts = zip(
        torch.split(attention, batch.study_lengths),
        torch.split(batch.targets == 1.0, batch.study_lengths),
        strict=True,
    )
    for weights, inside in parts:
        sizes = inside.sum(dim=0)
        masked = sizes > 0
        log_weights = weights.clamp(min=_FLOOR).log()
        mean_log = (log_weights * inside).sum(dim=0) / sizes.clamp(min=1)
        divergence = -mean_log - sizes.clamp(min=1).log()
        total = total + (divergence * masked).sum()
        count += int(masked.sum())
    return total / max(count, 1)

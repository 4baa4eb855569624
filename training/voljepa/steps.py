"""One optimizer step of Vol-JEPA in the published order, and how weights are grouped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.voljepa.network import JepaBatch, VolJepa
from training.voljepa.schedules import CosineWarmup, Momentum

CLIP = 1.0


@dataclass(frozen=True)
class StepReport:
    """What a step tells the log: loss, learning rate, gradient norm before clipping, momentum."""

    loss: float
    learning_rate: float
    gradient_norm: float
    momentum: float


@dataclass
class JepaTrainer:
    """Model, optimizer and both schedules; counts its steps.

    The published trainer moves the teacher after the forward pass and before the backward pass of
    the same step: with the student's old weights, after the old teacher gave the targets.

    Attributes:
        loss_of: computes the loss; replaced by the wrapped model's call under DDP or FSDP.
    """

    model: VolJepa
    optimizer: torch.optim.Optimizer
    rate: CosineWarmup
    momentum: Momentum
    loss_of: nn.Module | None = None
    autocast: torch.dtype | None = None
    step: int = 0

    def advance(self, batch: JepaBatch) -> StepReport:
        """One step on one batch."""
        rate, momentum = self.rate.at(self.step), self.momentum.at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._loss(batch)
        self.model.follow(momentum)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # as torch ships it
        norm = nn.utils.clip_grad_norm_(learning(self.model), CLIP)
        if hasattr(norm, "full_tensor"):  # FSDP's gradients are spread over the processes
            norm = norm.full_tensor()
        self.optimizer.step()
        self.step += 1
        return StepReport(float(loss.detach()), rate, float(norm), momentum)

    def _loss(self, batch: JepaBatch) -> Tensor:
        device = batch.tokens.device.type
        with torch.autocast(device, self.autocast or torch.bfloat16, self.autocast is not None):
            if self.loss_of is not None:
                wrapped: Tensor = self.loss_of(batch)
                return wrapped
            return self.model.loss(batch)


def learning(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that gradients move: student and predictor."""
    return [p for p in model.parameters() if p.requires_grad]


def make_optimizer(
    model: nn.Module, peak: float = 3.75e-4, weight_decay: float = 0.05
) -> torch.optim.AdamW:
    """AdamW as published: weight decay on every parameter, norms and biases too."""
    return torch.optim.AdamW(
        learning(model), lr=peak, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay
    )

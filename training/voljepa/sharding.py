"""One model on many processes: DDP or FSDP2, and checkpoints that any number of them can read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)

from training.runtime import Place, RunError
from training.voljepa.network import JepaBatch, VolJepa


class LossModule(nn.Module):
    """The loss as a forward pass, which is what DDP and FSDP watch."""

    def __init__(self, model: VolJepa) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: JepaBatch) -> Tensor:
        """The loss of this process' batch."""
        return self.model.loss(batch)


def wrap(model: VolJepa, how: str, place: Place) -> nn.Module | None:
    """What computes the loss across processes; None when there is only one.

    Raises:
        RunError: `how` is neither ``ddp`` nor ``fsdp``.
    """
    if how not in ("ddp", "fsdp"):
        raise RunError(f"sharding {how!r} is unknown; use ddp or fsdp")
    if place.world == 1:
        return None
    module = LossModule(model)
    if how == "fsdp":
        from torch.distributed.fsdp import fully_shard

        towers = (model.student.vision_encoder, model.teacher.vision_encoder, model.predictor)
        for tower in towers:
            for block in tower.blocks:
                fully_shard(block)
        fully_shard(module)
        return module
    ids = [place.device.index] if place.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(module, device_ids=ids)


def full_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Weights and optimizer state, whole and on the host; every process must call it."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights, steps = get_state_dict(model, optimizer, options=options)
    return {"model": weights, "optimizer": steps}


def load_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Inverse of `full_state`."""
    set_state_dict(
        model,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=StateDictOptions(full_state_dict=True),
    )

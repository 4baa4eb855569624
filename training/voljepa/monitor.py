"""Is the run collapsing? Spread and rank of the features, beside the loss that would not tell."""

from __future__ import annotations

import torch

from training.voljepa.network import JepaBatch, VolJepa

EVERY = 50
"""Steps between looks."""


@torch.no_grad()
def collapse(
    model: VolJepa, batch: JepaBatch, autocast: torch.dtype | None = None
) -> dict[str, float]:
    """Mean standard deviation of the teacher's features over tokens, and their effective rank.

    Both fall towards 0 and 1 when all tokens get one feature. The effective rank is the exponential
    of the entropy of the normalised singular values (Roy and Vetterli, 2007).
    """
    device = batch.tokens.device.type
    with torch.autocast(device, autocast or torch.bfloat16, autocast is not None):
        targets = model.targets(batch)
    features = targets.float()
    centred = features - features.mean(dim=0)
    values = torch.linalg.svdvals(centred)
    shares = values / values.sum().clamp_min(1e-12)
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum()
    return {"feature_std": float(features.std(dim=0).mean()), "feature_rank": float(entropy.exp())}

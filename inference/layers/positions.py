"""Sine-cosine position codes of integer grid coordinates, computed for the rows that are asked for.

The reference keeps a table of every position of a 128 x 192 x 192 grid (566 MB at 30 channels);
the few thousand rows of a study cost nothing to compute.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inference.errors import InputError


def encode_positions_3d(coords: Tensor, channels: int) -> Tensor:
    """Codes of (d, h, w): an equal share of channels for each axis, sine and cosine alternating.

    Channels that the three equal, even shares have too many are cut from the end: float32
    [N, channels].
    """
    share = 2 * math.ceil(channels / 6)
    exponents = torch.arange(0, share, 2, device=coords.device).float() / share
    inverse = 1.0 / (10000**exponents)
    angles = coords.to(inverse.dtype).unsqueeze(-1) * inverse  # [N, 3, share / 2]
    codes = torch.stack((angles.sin(), angles.cos()), dim=-1)
    return codes.flatten(1)[:, :channels]


def check_positions(coords: Tensor, limits: tuple[int, int, int]) -> None:
    """Refuse coordinates outside the grid; the reference's flat table would alias them silently.

    Raises:
        InputError: a coordinate is negative or not below its axis' limit.
    """
    if coords.numel() == 0:
        return
    low, high = coords.amin(dim=0).tolist(), coords.amax(dim=0).tolist()
    if min(low) < 0 or any(h >= limit for h, limit in zip(high, limits, strict=True)):
        raise InputError(
            f"token coordinates reach from {low} to {high}, outside the model's position grid "
            f"{list(limits)}: crop the volume or use a model with a larger grid"
        )

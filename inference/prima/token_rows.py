"""Tokens as rows of the series transformer: latent, place, and which axis is thin.

Legend: n tokens of a series; a latent is [2, 2, 8, 8] with its side of 2 along the thin axis.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from inference.errors import InputError
from inference.layers.positions import check_positions, encode_positions_3d

POSITION_CHANNELS = 30
POSITIONS = (100, 100, 100)
"""Grid of the reference's position table (1 000 000 rows); rows are computed here."""
THIN, PLANE = 4, 32
"""Voxels of a token along the thin axis and along the others."""
PLANE_TOKENS = 8


def token_rows(
    latents: Tensor, coords: Tensor, axis: int, position_channels: int = POSITION_CHANNELS
) -> Tensor:
    """Rows [n, 256 + position channels + 3] of encoded tokens.

    Args:
        latents: [n, 2, ...] as the tokenizer gives them.
        coords: int [n, 3], first voxel (z, y, x) of each token in the padded volume.
        axis: the thin one.
        position_channels: as the checkpoint was trained.

    Raises:
        InputError: counts differ, the latent's thin side is not `axis`, or a place is outside.
    """
    if len(latents) != len(coords):
        raise InputError(f"{len(latents)} tokens have {len(coords)} coordinates")
    if axis not in (0, 1, 2) or latents.ndim != 5 or latents.shape[2 + axis] != 2:
        raise InputError(
            f"latents of shape {list(latents.shape)} are not thin along axis {axis}; "
            "their side of 2 must lie there"
        )
    sides = torch.tensor([THIN if i == axis else PLANE for i in range(3)], device=coords.device)
    places = torch.div(coords, sides, rounding_mode="floor")
    check_positions(places, POSITIONS)
    codes = encode_positions_3d(places.to(latents.device), position_channels)
    # The reference swaps the thin axis with the first one; the other two keep their places.
    flat = latents.transpose(2, 2 + axis).flatten(1)
    thin = functional.one_hot(torch.tensor(axis, device=latents.device), 3).to(latents.dtype)
    return torch.cat((flat, codes.to(latents.dtype), thin.expand(len(flat), 3)), dim=1)


def raster_coords(count: int, axis: int) -> Tensor:
    """Coordinates of `count` tokens that fill whole slabs of 8 x 8, in raster order.

    Raises:
        InputError: they do not fill slabs.
    """
    if count % PLANE_TOKENS**2:
        raise InputError(f"{count} tokens do not fill slabs of 64; give their coordinates")
    shape = [count // PLANE_TOKENS**2 if i == axis else PLANE_TOKENS for i in range(3)]
    places = torch.cartesian_prod(*(torch.arange(n) for n in shape))
    return places * torch.tensor([THIN if i == axis else PLANE for i in range(3)])

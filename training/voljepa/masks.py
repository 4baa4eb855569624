"""Which tokens of a volume the student sees and which it must predict.

Blocks that span the whole depth are hidden; what lies outside them, thinned along depth, is the
context. Measured against the tissue, not the box it lies in (arXiv 2511.18640, Vol-JEPA).

Shape legend: a grid has D x H x W tokens in raster order; index arrays are int64, sorted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Indices = npt.NDArray[np.int64]
Range = tuple[float, float]

FIRST_SHARE = 0.95
SHARE_STEP = 0.05
DRAWS_PER_STEP = 5
MAX_DRAWS = 86
"""The draw at which the share that a block must hold has fallen to 0.1: it is taken as it is."""
ATTEMPTS = 5
CONTEXT_SHARE: Range = (0.05, 0.5)
"""Tokens the student may see, as a share of the foreground."""


@dataclass(frozen=True)
class BlockConfig:
    """One way to hide blocks.

    Attributes:
        plane_scale: by mode ("mri", "ct"): area of a block as a share of the foreground's area.
        aspect_ratio: height to width.
        blocks: how many blocks.
        switch: see the blocks and predict their surroundings.
    """

    plane_scale: Mapping[str, Range]
    aspect_ratio: Range = (0.3, 3.0)
    blocks: int = 1
    switch: bool = False


@dataclass(frozen=True)
class MaskConfig:
    """How masks are drawn.

    Attributes:
        ways: one is chosen for each series.
        context_scale: by mode: above this share of the foreground the context loses depth slabs.
        drop_rate: share of the context that is dropped at random and becomes a target.
        remove_background: leave background tokens out of all three sets.
        min_foreground: below this share of foreground, a block is taken where it falls.
        reference_uint8: reproduce the published code, whose foreground mask is inverted as a
            byte (255 and 254): blocks are then placed without regard to tissue, and the context
            never loses slabs. For parity only.
    """

    ways: tuple[BlockConfig, ...] = (BlockConfig({"mri": (0.7, 0.7), "ct": (0.75, 0.75)}),)
    context_scale: Mapping[str, float] = field(default_factory=lambda: {"mri": 0.25, "ct": 0.2})
    drop_rate: float = 0.1
    remove_background: bool = True
    min_foreground: float = 0.0
    reference_uint8: bool = False


def read_mask_config(config: Mapping[str, Any], *, reference_uint8: bool = False) -> MaskConfig:
    """The published data module's keys; lists of unequal length end with the shortest, as there."""
    ways = zip(
        config["hw_pred_mask_scale"],
        config["aspect_ratio"],
        config["npred"],
        config["switch_enc_pred"],
        strict=False,
    )
    return MaskConfig(
        ways=tuple(
            BlockConfig({mode: _range(pair) for mode, pair in scale.items()}, _range(aspect), n, s)
            for scale, aspect, n, s in ways
        ),
        context_scale=dict(config["enc_mask_scale"]),
        drop_rate=float(config.get("drop_rate", 0.0)),
        remove_background=bool(config.get("remove_background", True)),
        min_foreground=float(config.get("min_filt_ratio", 0.0)),
        reference_uint8=reference_uint8,
    )


@dataclass(frozen=True, eq=False)
class Grid:
    """A series' token grid.

    Attributes:
        shape: (D, H, W) in tokens.
        foreground: bool [D * H * W].
        mode: "mri" or "ct".
    """

    shape: tuple[int, int, int]
    foreground: npt.NDArray[np.bool_]
    mode: str


@dataclass(frozen=True, eq=False)
class SeriesMask:
    """The two parts of a series, as indices into its whole grid.

    Attributes:
        context: what the student sees.
        targets: what it predicts; together with `context` all that takes part.
    """

    context: Indices
    targets: Indices

    @property
    def taking_part(self) -> Indices:
        """Both parts, sorted: what the teacher sees."""
        return np.union1d(self.context, self.targets)


DEGENERATE = SeriesMask(np.zeros(1, np.int64), np.zeros(1, np.int64))
"""What the published code falls back to: token 0 is context and target at once."""


def draw_masks(
    grids: Sequence[Grid], config: MaskConfig, call: int, places: torch.Generator | None = None
) -> list[SeriesMask | None]:
    """A mask for each series; None where no attempt left a usable context.

    Args:
        grids: of the series of one batch.
        config: how to draw.
        call: counts the batches; seeds shapes, so that all workers draw equal ones.
        places: draws positions; None = torch's default generator.
    """
    shapes = torch.Generator().manual_seed(call)
    return [_draw(grid, config, shapes, places) for grid in grids]


def _draw(
    grid: Grid, config: MaskConfig, shapes: torch.Generator, places: torch.Generator | None
) -> SeriesMask | None:
    way = config.ways[int(torch.randint(0, len(config.ways), (1,), generator=shapes))]
    foreground = torch.from_numpy(grid.foreground).view(grid.shape)
    share = float(foreground.float().mean())
    sides = _block_sides(grid, way, share, shapes)
    weights = _weights(foreground, config)
    everything = math.prod(grid.shape)
    free = not config.remove_background or share < config.min_foreground
    for _ in range(ATTEMPTS):
        inside = torch.zeros(grid.shape, dtype=torch.bool)
        for _ in range(way.blocks):
            top, left = _place(weights, sides, places, free=free)
            inside[:, top : top + sides[0], left : left + sides[1]] = True
        context = inside if way.switch else ~inside
        whole = int(weights.sum()) if config.remove_background else everything
        context = _thin(context, foreground, whole, config.context_scale[grid.mode], places)
        kept = torch.full((everything,), 1.0 - config.drop_rate)
        seen = context.flatten() & torch.bernoulli(kept, generator=places).bool()
        hidden = ~seen
        candidates = everything
        if config.remove_background:
            seen, hidden = seen & foreground.flatten(), hidden & foreground.flatten()
            candidates = int(foreground.sum())
        low, high = CONTEXT_SHARE
        if seen.any() and hidden.any() and low <= int(seen.sum()) / candidates <= high:
            return SeriesMask(_indices(seen), _indices(hidden))
    return None


def _block_sides(
    grid: Grid, way: BlockConfig, share: float, shapes: torch.Generator
) -> tuple[int, int]:
    """Rows and columns of a block; its depth is the grid's."""
    _, height, width = grid.shape
    scale = _uniform(way.plane_scale[grid.mode], shapes)
    aspect = _uniform(way.aspect_ratio, shapes)
    area = int(height * width * scale * share)
    rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return min(max(rows, 1), height), min(max(columns, 1), width)


def _weights(foreground: torch.Tensor, config: MaskConfig) -> torch.Tensor:
    """What a block should hold of: 1 for tissue; the published code's bytes when asked."""
    if not config.reference_uint8:
        return foreground.to(torch.int64)
    return torch.where(foreground, 255, 254)


def _place(
    weights: torch.Tensor,
    sides: tuple[int, int],
    places: torch.Generator | None,
    *,
    free: bool,
) -> tuple[int, int]:
    """Top left corner of a block that holds enough of the weights; less is asked as draws fail."""
    _, height, width = weights.shape
    rows, columns = sides
    whole = int(weights.sum())
    wanted = FIRST_SHARE
    top = left = 0
    for draw in range(1, MAX_DRAWS + 1):
        top = int(torch.randint(0, height - rows + 1, (1,), generator=places))
        left = int(torch.randint(0, width - columns + 1, (1,), generator=places))
        held = int(weights[:, top : top + rows, left : left + columns].sum())
        if free or held >= wanted * whole:
            break
        if draw % DRAWS_PER_STEP == 0:
            wanted -= SHARE_STEP
    return top, left


def _thin(
    context: torch.Tensor,
    foreground: torch.Tensor,
    whole: int,
    limit: float,
    places: torch.Generator | None,
) -> torch.Tensor:
    """The context without a run of depth slabs, if it shows more of the foreground than allowed."""
    shown = int((context & foreground).sum()) / max(whole, 1)
    if shown <= limit:
        return context
    depth = context.shape[0]
    slabs = math.floor((1 - limit / shown) * depth)
    first = int(torch.randint(0, depth - slabs + 1, (1,), generator=places))
    thinned = context.clone()
    thinned[first : first + slabs] = False
    return thinned


def _uniform(limits: Range, generator: torch.Generator) -> float:
    low, high = limits
    return low + float(torch.rand(1, generator=generator)) * (high - low)


def _indices(mask: torch.Tensor) -> Indices:
    found: Indices = torch.nonzero(mask).flatten().numpy()
    return found


def _range(pair: Sequence[float]) -> Range:
    low, high = pair
    return float(low), float(high)

"""Runs series through the encoder in batches that fit a token budget, splitting when memory ends.

Attention never crosses series, so any cut between series gives the same numbers and memory grows
with the budget, not with the study.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog
import torch
from torch import Tensor

from inference import devices
from inference.errors import OutOfMemoryError
from inference.neurovfm.model import VisionTransformer
from inference.neurovfm.tokens import DEFAULT_STATS, SeriesTokens, Stats, Window, normalise

log = structlog.get_logger(__name__)

CPU_TOKEN_BUDGET = 8_192
"""Above some 4 000 tokens the CPU's matrix products gain nothing; the rest is only memory."""
CUDA_TOKEN_BUDGET = 65_536


@dataclass(frozen=True, eq=False)
class Packed:
    """Tokens of several series end to end.

    Attributes:
        tokens: float32 [N, 1024], scaled, not normalised.
        coords: int64 [N, 3].
        lengths: tokens of each series.
        windows: how each series was scaled.
    """

    tokens: Tensor
    coords: Tensor
    lengths: tuple[int, ...]
    windows: tuple[Window, ...]


def pack(series: Sequence[SeriesTokens]) -> Packed:
    """Lay series end to end, in order."""
    tokens = [torch.from_numpy(part.tokens) for part in series]
    coords = [torch.from_numpy(part.coords) for part in series]
    return Packed(
        tokens=torch.cat(tokens) if tokens else torch.zeros(0, 1024),
        coords=torch.cat(coords) if coords else torch.zeros(0, 3, dtype=torch.int64),
        lengths=tuple(len(part.tokens) for part in series),
        windows=tuple(part.window for part in series),
    )


@torch.inference_mode()
def embed(
    model: VisionTransformer,
    packed: Packed,
    *,
    device: torch.device | None = None,
    stats: Stats = DEFAULT_STATS,
    use_amp: bool = False,
    token_budget: int | None = None,
) -> Tensor:
    """Embeddings of all tokens [N, E] on `device`, in bfloat16 with `use_amp`, else float32.

    Raises:
        OutOfMemoryError: one series alone does not fit the device.
    """
    target = device or next(model.parameters()).device
    budget = token_budget or (CUDA_TOKEN_BUDGET if target.type == "cuda" else CPU_TOKEN_BUDGET)
    dtype = torch.bfloat16 if use_amp else torch.float32
    out = torch.empty(len(packed.tokens), model.config.embed_dim, device=target, dtype=dtype)
    pending = list(plan(packed.lengths, budget))[::-1]
    while pending:
        first, last = pending.pop()
        start, stop = sum(packed.lengths[:first]), sum(packed.lengths[:last])
        try:
            out[start:stop] = _embed_once(
                model, packed, (first, last), target, stats=stats, use_amp=use_amp
            )
        except RuntimeError as error:
            if not devices.is_out_of_memory(error):
                raise
            pending += _halves(first, last, error)
    return out


def plan(lengths: Sequence[int], budget: int) -> Iterator[tuple[int, int]]:
    """Neighbouring series as (first, last) ranges of at most `budget` tokens where they fit."""
    first, tokens = 0, 0
    for index, length in enumerate(lengths):
        if tokens and tokens + length > budget:
            yield first, index
            first, tokens = index, 0
        tokens += length
    if first < len(lengths):
        yield first, len(lengths)


def _halves(first: int, last: int, error: BaseException) -> list[tuple[int, int]]:
    """What to try instead of a range that did not fit, last half first."""
    if last - first < 2:
        raise OutOfMemoryError(
            "one series alone does not fit the device's memory: free the device or run on another"
        ) from error
    middle = (first + last) // 2
    log.warning("encoder_batch_split", series=last - first)
    return [(middle, last), (first, middle)]


def _embed_once(
    model: VisionTransformer,
    packed: Packed,
    span: tuple[int, int],
    device: torch.device,
    *,
    stats: Stats,
    use_amp: bool,
) -> Tensor:
    """One forward pass over the series first..last."""
    lengths, windows = packed.lengths[slice(*span)], packed.windows[slice(*span)]
    start = sum(packed.lengths[: span[0]])
    rows = slice(start, start + sum(lengths))
    parts = torch.split(packed.tokens[rows].to(device), list(lengths))
    tokens = torch.cat([normalise(x, w, stats) for x, w in zip(parts, windows, strict=True)])
    edges = torch.tensor([0, *lengths]).cumsum(0)
    with torch.autocast(device.type, torch.bfloat16, enabled=use_amp):
        return model(tokens, packed.coords[rows].to(device), edges)  # type: ignore[no-any-return]

"""Attention and softmax over the segments of a packed sequence, without N x N memory.

Shape legend: N tokens of all segments, S segments, H heads, D head dimension, C columns.
A boundary vector `cu_seqlens` [S + 1] starts at 0, never falls and ends at N; equal neighbours mean
an empty segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

from inference.errors import InputError


@dataclass(frozen=True)
class Segments:
    """Where each segment of a packed sequence begins and ends, on the host and on the device."""

    lengths: tuple[int, ...]
    cu_seqlens: Tensor

    @property
    def tokens(self) -> int:
        """Tokens of all segments together."""
        return sum(self.lengths)

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Start and stop of every segment, empty ones included."""
        stops = torch.tensor(self.lengths, dtype=torch.int64).cumsum(0).tolist()
        return [(stop - n, stop) for n, stop in zip(self.lengths, stops, strict=True)]

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Neighbours of equal length as (count, length): each run is one batched kernel call."""
        found = [(len(list(run)), n) for n, run in groupby(self.lengths)]
        return [(count, n) for count, n in found if n]


def read_segments(cu_seqlens: Tensor, tokens: int) -> Segments:
    """Check a boundary vector against the number of tokens it has to cover.

    Raises:
        InputError: it does not start at 0, falls somewhere, or does not end at `tokens`.
    """
    edges = cu_seqlens.tolist()
    lengths = tuple(b - a for a, b in pairwise(edges))
    if not edges or edges[0] != 0 or edges[-1] != tokens or any(n < 0 for n in lengths):
        raise InputError(
            f"cu_seqlens {edges[:4]}..{edges[-1:]} do not cover {tokens} tokens: they must start "
            "at 0, never fall and end at the number of tokens"
        )
    return Segments(lengths=lengths, cu_seqlens=cu_seqlens)


def segment_attention(
    q: Tensor, k: Tensor, v: Tensor, segments: Segments, dropout: float = 0.0
) -> Tensor:
    """Softmax attention inside each segment, never across: [N, H, D]."""
    if _kernel_takes(q, dropout):
        cu = segments.cu_seqlens.to(device=q.device, dtype=torch.int32)
        longest = max(segments.lengths, default=0)
        mixed: Tensor = varlen_attn(q, k, v, cu, cu, longest, longest)  # type: ignore[assignment]
        return mixed  # one tensor, because no auxiliary output was asked for
    parts: list[Tensor] = []
    start = 0
    for count, length in segments.runs:
        stop = start + count * length
        rows = slice(start, stop)
        out = functional.scaled_dot_product_attention(
            _batch(q[rows], count),
            _batch(k[rows], count),
            _batch(v[rows], count),
            dropout_p=dropout,
        )
        parts.append(out.transpose(1, 2).flatten(0, 1))
        start = stop
    return torch.cat(parts) if parts else torch.zeros_like(q)


def segment_softmax(scores: Tensor, segments: Segments) -> Tensor:
    """Softmax down the tokens of each segment, every column on its own: float32 [N, C].

    One kernel call a segment covers all columns. Scatter kernels would save those calls but add in
    an order that changes from run to run on a GPU, and the same study must give the same answer.
    """
    parts = torch.split(scores.float(), list(segments.lengths))
    return torch.cat([part.softmax(dim=0) for part in parts])


def segment_sum(values: Tensor, segments: Segments) -> Tensor:
    """Sum of each segment's rows; an empty segment gives zeros: [S, C]."""
    return torch.stack([part.sum(dim=0) for part in torch.split(values, list(segments.lengths))])


def _kernel_takes(q: Tensor, dropout: float) -> bool:
    """Whether torch's variable-length flash kernel runs this: half precision, Ampere or later."""
    half = q.dtype in (torch.float16, torch.bfloat16)
    if not q.is_cuda or not half or dropout > 0.0 or q.shape[-1] % 8 or q.shape[-1] > 256:
        return False
    return torch.cuda.get_device_capability(q.device) >= (8, 0)


def _batch(x: Tensor, count: int) -> Tensor:
    """A run's tokens as a batch of equal segments, without a copy: [count, H, L, D]."""
    return x.reshape(count, -1, *x.shape[1:]).transpose(1, 2)

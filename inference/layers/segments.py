"""Attention and softmax over the segments of a packed sequence, without N x N memory.

Shape legend: N tokens of all segments, S segments, H heads, D head dimension, C columns.
A boundary vector `cu_seqlens` [S + 1] starts at 0, never falls and ends at N; equal neighbours mean
an empty segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torch.nn import functional

from inference.errors import InputError

try:  # pragma: no cover - absent before torch 2.10
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # pragma: no cover
    varlen_attn = None


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
    lengths = tuple(b - a for a, b in zip(edges, edges[1:], strict=False))
    if not edges or edges[0] != 0 or edges[-1] != tokens or any(n < 0 for n in lengths):
        raise InputError(
            f"cu_seqlens {edges[:4]}..{edges[-1:]} do not cover {tokens} tokens: they must start "
            "at 0, never fall and end at the number of tokens"
        )
    return Segments(lengths=lengths, cu_seqlens=cu_seqlens)


def segment_attention(
    q_NHD: Tensor, k_NHD: Tensor, v_NHD: Tensor, segments: Segments, dropout: float = 0.0
) -> Tensor:
    """Softmax attention inside each segment, never across: [N, H, D]."""
    if _kernel_takes(q_NHD, dropout):
        cu = segments.cu_seqlens.to(device=q_NHD.device, dtype=torch.int32)
        longest = max(segments.lengths, default=0)
        return varlen_attn(q_NHD, k_NHD, v_NHD, cu, cu, longest, longest)
    parts: list[Tensor] = []
    start = 0
    for count, length in segments.runs:
        stop = start + count * length
        qkv = (x[start:stop].unflatten(0, (count, length)) for x in (q_NHD, k_NHD, v_NHD))
        q, k, v = (x.transpose(1, 2) for x in qkv)
        out = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        parts.append(out.transpose(1, 2).flatten(0, 1))
        start = stop
    return torch.cat(parts) if parts else torch.zeros_like(q_NHD)


def segment_softmax(scores_NC: Tensor, segments: Segments) -> Tensor:
    """Softmax down the tokens of each segment, every column on its own: float32 [N, C].

    One kernel call a segment covers all columns. Scatter kernels would save those calls but add in
    an order that changes from run to run on a GPU, and the same study must give the same answer.
    """
    parts = scores_NC.float().split(list(segments.lengths))
    return torch.cat([part.softmax(dim=0) for part in parts])


def segment_sum(values_NC: Tensor, segments: Segments) -> Tensor:
    """Sum of each segment's rows; an empty segment gives zeros: [S, C]."""
    return torch.stack([part.sum(dim=0) for part in values_NC.split(list(segments.lengths))])


def _kernel_takes(q_NHD: Tensor, dropout: float) -> bool:
    """Whether torch's variable-length flash kernel can run this (half precision on CUDA)."""
    half = q_NHD.dtype in (torch.float16, torch.bfloat16)
    return varlen_attn is not None and q_NHD.is_cuda and half and dropout == 0.0

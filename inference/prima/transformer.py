"""Transformers over packed sequences, under the parameter names of the published checkpoint.

Legend: N rows of all sequences, S sequences, D width, H heads, K registers ("cls tokens").
Sequences of different lengths lie one after the other; attention stays inside each, so that no
padding exists and none can leak.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.layers.segments import Segments, segment_attention


@dataclass(frozen=True)
class TransformerSize:
    """Sizes of a stack of layers."""

    dim: int
    depth: int
    heads: int
    dim_head: int
    mlp_dim: int
    projected: bool = True
    """Whether attention has an output projection; the reference leaves it out for one full head."""


@dataclass(frozen=True)
class VitSize:
    """A transformer with registers and an output layer."""

    layers: TransformerSize
    registers: int
    outputs: int


class Vit(nn.Module):
    """Registers before each sequence; what they hold after the layers stands for it."""

    def __init__(self, size: VitSize) -> None:
        super().__init__()
        dim = size.layers.dim
        self.cls_token = nn.Parameter(torch.randn(1, size.registers, dim))
        self.transformer = Transformer(size.layers)
        self.layernorm = nn.LayerNorm(dim)
        self.mlp_head = nn.Sequential(nn.Linear(size.registers * dim, size.outputs))

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.cls_token.shape[2]

    def pool(self, sequences: Sequence[Tensor]) -> Tensor:
        """Normalised registers of each sequence [L, D], side by side: [S, K * D]."""
        registers = self.cls_token[0]
        rows = torch.cat([part for s in sequences for part in (registers, s.to(registers.dtype))])
        segments = join_lengths([len(registers) + len(s) for s in sequences], rows.device)
        out = self.transformer(rows, segments)
        starts = torch.tensor([start for start, _ in segments.bounds], device=rows.device)
        places = starts[:, None] + torch.arange(len(registers), device=rows.device)
        pooled: Tensor = self.layernorm(out[places])
        return pooled.flatten(1)

    def forward(self, sequences: Sequence[Tensor]) -> Tensor:
        """One vector a sequence: [S, outputs]."""
        vectors: Tensor = self.mlp_head(self.pool(sequences))
        return vectors


class Transformer(nn.Module):
    """Pre-norm layers without a norm at the end."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [PreNorm(size.dim, Attention(size)), PreNorm(size.dim, FeedForward(size))]
            )
            for _ in range(size.depth)
        )

    def forward(self, rows: Tensor, segments: Segments) -> Tensor:
        """[N, D] -> [N, D]."""
        for attend, feed in cast("Iterable[tuple[PreNorm, PreNorm]]", self.layers):
            rows = rows + attend.fn(attend.norm(rows), segments)
            rows = rows + feed.fn(feed.norm(rows))
        return rows


class PreNorm(nn.Module):
    """Holds a module and the norm before it under the checkpoint's names."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn


class Attention(nn.Module):
    """Multi-head attention inside each sequence."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        inner = size.heads * size.dim_head
        self.heads = size.heads
        self.to_qkv = nn.Linear(size.dim, 3 * inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, size.dim)) if size.projected else nn.Identity()

    def forward(self, rows: Tensor, segments: Segments) -> Tensor:
        """[N, D] -> [N, D]."""
        q, k, v = self.to_qkv(rows).unflatten(-1, (3, self.heads, -1)).unbind(1)
        mixed: Tensor = self.to_out(segment_attention(q, k, v, segments).flatten(1))
        return mixed


class FeedForward(nn.Module):
    """Two linear layers with exact GELU; places 2 and 4 were dropout in training."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(size.dim, size.mlp_dim),
            nn.GELU(),
            nn.Identity(),
            nn.Linear(size.mlp_dim, size.dim),
        )

    def forward(self, rows: Tensor) -> Tensor:
        """[N, D] -> [N, D]."""
        out: Tensor = self.net(rows)
        return out


def join_lengths(lengths: Sequence[int], device: torch.device) -> Segments:
    """Boundaries of sequences that lie one after the other."""
    edges = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    return Segments(lengths=tuple(lengths), cu_seqlens=edges)


def pad_columns(rows: Tensor, width: int) -> Tensor:
    """Rows filled with zeros on the right: a checkpoint's width may exceed that of its tokens."""
    return functional.pad(rows, (0, width - rows.shape[1])) if rows.shape[1] < width else rows

"""Attentive diagnostic heads: study-level logits, and where in the study each label looked.

Parameter names are those of the official files. Shape legend: N tokens of all studies, B studies,
E embedding width, W attention columns, C labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from inference.layers.segments import Segments, read_segments, segment_softmax, segment_sum
from inference.neurovfm.config import HeadConfig, read_head_config

NORM_EPS = 1e-6


@dataclass(frozen=True)
class HeadOutput:
    """What a head says of a batch of studies.

    Attributes:
        logits: [B, C]; C is 0 when the head has no classifier of its own.
        attention: [N, W], sums to 1 over each study's tokens; W is 1 (shared by all labels) or C.
        patch_logits: [N, 1 or C], each token's own evidence, before scale and bias; None when the
            head has no classifier.
        pooled: [B, E] or [B, W, E] of an aggregate-first head, else None.
    """

    logits: Tensor
    attention: Tensor
    patch_logits: Tensor | None = None
    pooled: Tensor | None = None

    @property
    def probabilities(self) -> Tensor:
        """Sigmoid of the logits: float32 [B, C]."""
        return self.logits.float().sigmoid()


def build_head(
    config: Mapping[str, Any], dim: int = 768
) -> ClassifyThenAggregate | AggregateThenClassify | PooledClassifier:
    """Build the head that an official `config.json` describes, for embeddings `dim` wide.

    Raises:
        ConfigError: the configuration names something these heads do not have.
    """
    read = read_head_config(config, dim)
    if read.proj_dims is not None:
        return PooledClassifier(read)
    if read.which == "classify_then_aggregate":
        return ClassifyThenAggregate(read)
    return AggregateThenClassify(read)


class GatedAttention(nn.Module):
    """The attention both heads share: scores from tanh features, gated if so configured."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.attention_V = nn.Linear(config.dim, config.hidden_dim)
        if config.gating:
            self.gating_V = nn.Linear(config.dim, config.hidden_dim)
        self.W = nn.Linear(config.hidden_dim, config.outputs)
        if config.norm:
            self.norm_attn = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.drop = nn.Dropout(config.drop_rate)

    def attend(self, x: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
        """Attention [N, W] and the (normalised) tokens it was computed from."""
        values = self.norm_attn(x) if self.config.norm else x
        features = self.attention_V(values).tanh()
        if self.config.gating:
            features = features * self.gating_V(values).sigmoid()
        return segment_softmax(self.W(self.drop(features)), segments), values


class ClassifyThenAggregate(GatedAttention):
    """Every token is classified, then the tokens' logits are averaged by attention."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        if config.norm:
            self.norm_mlp = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.mlp = Stack(
            (config.dim, *config.mlp_hidden_dims, config.mlp_outputs), config.drop_rate
        )
        if config.output_scale:
            self.output_scale = nn.Parameter(torch.ones(config.outputs))
            self.output_bias = nn.Parameter(torch.zeros(config.outputs))

    def forward(self, x: Tensor, study_cu_seqlens: Tensor) -> HeadOutput:
        """Embeddings [N, E] of the studies that `study_cu_seqlens` [B + 1] bounds."""
        segments = read_segments(study_cu_seqlens, x.shape[0])
        x = x.to(self.W.weight.dtype)
        attention, _ = self.attend(x, segments)
        patch_logits = self.mlp(self.norm_mlp(x) if self.config.norm else x)
        logits = segment_sum(attention * patch_logits, segments)
        if self.config.output_scale:
            logits = logits * self.output_scale + self.output_bias
        return HeadOutput(logits=logits, attention=attention, patch_logits=patch_logits)


class AggregateThenClassify(GatedAttention):
    """Tokens are averaged by attention; the official head stops there."""

    def forward(self, x: Tensor, study_cu_seqlens: Tensor) -> HeadOutput:
        """Embeddings [N, E] of the studies that `study_cu_seqlens` [B + 1] bounds."""
        segments = read_segments(study_cu_seqlens, x.shape[0])
        x = x.to(self.W.weight.dtype)
        attention, values = self.attend(x, segments)
        pooled = _pool(attention, values, segments)
        none = pooled.new_zeros((len(segments.lengths), 0))
        return HeadOutput(logits=none, attention=attention, pooled=pooled)


class PooledClassifier(nn.Module):
    """The training system's pooler with a classifier on the pooled vector."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.pooler = AggregateThenClassify(config)
        self.proj = Stack((config.dim, *(config.proj_dims or ())), config.drop_rate)

    def forward(self, x: Tensor, study_cu_seqlens: Tensor) -> HeadOutput:
        """Embeddings [N, E] of the studies that `study_cu_seqlens` [B + 1] bounds."""
        segments = read_segments(study_cu_seqlens, x.shape[0])
        x = x.to(self.pooler.W.weight.dtype)
        attention, values = self.pooler.attend(x, segments)
        pooled = _pool(attention, values, segments)
        return HeadOutput(
            logits=self.proj(pooled),
            attention=attention,
            patch_logits=self.proj(values),
            pooled=pooled,
        )


class Stack(nn.Module):
    """Linear layers with exact GELU between; parameters at even places, as published."""

    def __init__(self, widths: tuple[int, ...], drop_rate: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            # Dropout has no place of its own: official keys count in twos.
            layers += [nn.Linear(before, after), ActivateAndDrop(drop_rate)]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """[..., first width] -> [..., last width]."""
        return self.mlp(x)  # type: ignore[no-any-return]


class ActivateAndDrop(nn.Module):
    """Exact (erf) GELU, then dropout."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(rate)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out."""
        return self.drop(nn.functional.gelu(x))  # type: ignore[no-any-return]


def _pool(attention: Tensor, values: Tensor, segments: Segments) -> Tensor:
    """Attention-weighted sums, one matrix product a study: [B, E], or [B, W, E] when W > 1."""
    lengths = list(segments.lengths)
    parts = zip(torch.split(attention, lengths), torch.split(values.float(), lengths), strict=True)
    pooled = torch.stack([weights.transpose(0, 1) @ rows for weights, rows in parts])
    return pooled.squeeze(1) if attention.shape[1] == 1 else pooled

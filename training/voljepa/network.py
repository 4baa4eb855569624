"""Student, teacher and predictor, with the names of the published checkpoints.

Shape legend: C context tokens, T target tokens of all series, E encoder width, P predictor width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.layers.positions import check_positions, encode_positions_3d
from inference.layers.segments import Segments, read_segments
from inference.neurovfm.config import EncoderConfig, PositionConfig
from inference.neurovfm.model import NORM_EPS, Block, VisionTransformer, build_encoder


@dataclass(frozen=True)
class PredictorConfig:
    """Size of the predictor; the published one is as wide and deep as the encoder (ViT-Base)."""

    dim: int
    depth: int
    num_heads: int
    dim_head: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = True


@dataclass(frozen=True, eq=False)
class JepaBatch:
    """Masked series, packed one after another.

    Attributes:
        tokens: float32 [N, 1024], normalised; all tokens that take part (the teacher's view).
        coords: int64 [N, 3].
        cu_seqlens: boundaries of the series among the N.
        context, targets: rows of `tokens` that the student sees and must predict; both grouped by
            series in the order of the series.
        context_cu, targets_cu: boundaries of the series among them.
    """

    tokens: Tensor
    coords: Tensor
    cu_seqlens: Tensor
    context: Tensor
    context_cu: Tensor
    targets: Tensor
    targets_cu: Tensor

    def to(self, device: torch.device | str) -> JepaBatch:
        """The batch on another device."""
        moved = {name: value.to(device, non_blocking=True) for name, value in vars(self).items()}
        return JepaBatch(**moved)


class Tower(nn.Module):
    """Holds the encoder under the name that the published files have."""

    def __init__(self, encoder: VisionTransformer) -> None:
        super().__init__()
        self.vision_encoder = encoder


class Predictor(nn.Module):
    """From what the student saw and where, to the teacher's features elsewhere."""

    def __init__(self, config: PredictorConfig, encoder: EncoderConfig) -> None:
        super().__init__()
        if encoder.position is None or not encoder.position.concat:
            raise ValueError("the predictor needs an encoder with concatenated position codes")
        self.position: PositionConfig = encoder.position
        width = encoder.embed_dim
        self.from_vision_encoder = nn.Linear(width + self.position.channels, config.dim)
        self.mask_tokens = nn.ParameterList([nn.Parameter(torch.zeros(1, width))])
        self.blocks = nn.ModuleList(_block(config, encoder) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.to_vision_encoder = nn.Linear(config.dim, width)
        self.checkpointing = False
        self.apply(_init)

    def forward(self, context: Tensor, batch: JepaBatch) -> Tensor:
        """Features [C, E] of the context -> predictions [T, E] in the order of the targets."""
        x, cu, order, count = self._join(context, batch)
        segments = read_segments(cu, x.shape[0])
        for block in self.blocks:
            x = run_block(block, x, segments, checkpointing=self.checkpointing and self.training)
        latents = self.norm(x)
        predicted = torch.empty(count, latents.shape[1], dtype=latents.dtype, device=x.device)
        predicted[order[1]] = latents[order[0]]
        out: Tensor = self.to_vision_encoder(predicted)
        return out

    def _join(
        self, context: Tensor, batch: JepaBatch
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], int]:
        """Series by series [context, mask tokens]; where in it each target's row is."""
        targets = batch.targets.shape[0]
        masks = self.mask_tokens[0].to(context.dtype).expand(targets, -1)
        features = torch.cat((context, masks))
        rows = torch.cat((batch.context, batch.targets))
        positions = batch.coords[rows]
        check_positions(positions, self.position.limits)
        codes = encode_positions_3d(positions, self.position.channels).to(features.dtype)
        lengths = torch.stack((batch.context_cu.diff(), batch.targets_cu.diff()))
        series = torch.arange(lengths.shape[1], device=features.device)
        owner = torch.cat(
            [series.repeat_interleave(one.to(features.device)) for one in lengths.unbind(0)]
        )
        kind = torch.cat((torch.zeros_like(batch.context), torch.ones_like(batch.targets)))
        order = torch.argsort(owner * 2 + kind, stable=True)
        x = self.from_vision_encoder(
            torch.cat((features, codes * self.position.factor), dim=-1)[order]
        )
        cu = functional.pad(lengths.sum(0).cumsum(0), (1, 0))
        at = torch.nonzero(kind[order]).flatten()
        return x, cu, (at, order[at] - context.shape[0]), targets


class VolJepa(nn.Module):
    """The three networks of a run; `loss` is what one step minimises."""

    def __init__(self, encoder: Mapping[str, Any], predictor: PredictorConfig) -> None:
        super().__init__()
        built = build_encoder(encoder)
        self.student = Tower(built)
        self.teacher = Tower(copy.deepcopy(built))
        self.teacher.requires_grad_(requires_grad=False)
        self.predictor = Predictor(predictor, built.config)

    def targets(self, batch: JepaBatch) -> Tensor:
        """The teacher's features of the whole foreground, layer-normed without affine: [T, E]."""
        with torch.no_grad():
            seen = self.teacher.vision_encoder(batch.tokens, batch.coords, batch.cu_seqlens)
            normed = functional.layer_norm(seen.float(), (seen.shape[-1],))
        return normed[batch.targets]

    def loss(self, batch: JepaBatch) -> Tensor:
        """Smooth L1 between prediction and target features, a scalar."""
        wanted = self.targets(batch)
        return functional.smooth_l1_loss(self.predict(batch).float(), wanted)

    def predict(self, batch: JepaBatch) -> Tensor:
        """What the student and the predictor make of the context: [T, E]."""
        seen = self.student.vision_encoder(
            batch.tokens, batch.coords, batch.context_cu, masks=batch.context
        )
        out: Tensor = self.predictor(seen, batch)
        return out

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the teacher: momentum * teacher + (1 - momentum) * student."""
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for mine, other in pairs:
            mine.mul_(momentum).add_(other.detach(), alpha=1.0 - momentum)

    def train(self, mode: bool = True) -> VolJepa:
        """Training mode for student and predictor; the teacher never drops anything."""
        super().train(mode)
        self.teacher.eval()
        return self


def run_block(block: nn.Module, x: Tensor, segments: Segments, *, checkpointing: bool) -> Tensor:
    """A transformer block, its inside computed again in the backward pass if asked."""
    if not checkpointing:
        out: Tensor = block(x, segments)
        return out
    from torch.utils.checkpoint import checkpoint

    again: Tensor = checkpoint(block, x, segments, use_reentrant=False)
    return again


def _block(config: PredictorConfig, encoder: EncoderConfig) -> Block:
    shape = EncoderConfig(
        embed_dim=config.dim,
        depth=1,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        qkv_bias=config.qkv_bias,
        embed_layer="linear",
        embed_in=config.dim,
        embed_out=config.dim,
        embed_bias=True,
        position=None,
        init_std=encoder.init_std,
    )
    block = Block(shape, drop_path=0.0)
    inner = config.num_heads * config.dim_head
    if inner != config.dim:
        block.mixer.qkv = nn.Linear(config.dim, 3 * inner, bias=config.qkv_bias)
        block.mixer.proj = nn.Linear(inner, config.dim, bias=False)
    return block


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

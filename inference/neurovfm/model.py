"""The NeuroVFM encoder: a vision transformer over voxel tokens, attention inside each series.

Module and parameter names are those of the official files. Shape legend: N tokens of all series,
E embedding width, H heads, D = E / H, L tokens of one series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.errors import InputError
from inference.layers.positions import check_positions, encode_positions_3d
from inference.layers.segments import Segments, read_segments, segment_attention
from inference.neurovfm.config import EncoderConfig, PositionConfig, read_encoder_config

NORM_EPS = 1e-6


def build_encoder(config: Mapping[str, Any]) -> VisionTransformer:
    """Build the encoder that an official `config.json` ({"which", "params"}) describes.

    Raises:
        ConfigError: the configuration names something this encoder does not have.
    """
    return VisionTransformer(read_encoder_config(config))


class VisionTransformer(nn.Module):
    """Tokens and their grid coordinates in, one embedding a token out; float32 unless autocast."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        #: Position codes rounded to bfloat16, as the reference's cast of a whole findings model
        #: does to its table; the language model was trained on what that gives.
        self.rounded_positions = False
        if config.embed_layer == "voxel":
            self.token_embed: nn.Module = VoxelEmbed(config)
        else:
            self.token_embed = nn.Linear(config.embed_in, config.embed_out, bias=config.embed_bias)
        self.pos_drop = nn.Dropout(config.drop_rate)
        steps = max(config.depth - 1, 1)
        rates = [config.drop_path_rate * index / steps for index in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        self.apply(self._init)

    def forward(
        self,
        tokens: Tensor,
        coords: Tensor,
        series_cu_seqlens: Tensor,
        *,
        masks: Tensor | None = None,
        masks_enc: Tensor | None = None,
        features: Literal["final", "penultimate"] = "final",
    ) -> Tensor:
        """Embed normalised tokens [N, 1024] at coords [N, 3]: [N, E].

        Args:
            tokens: normalised token values.
            coords: integer (d, h, w) of each token in its series' grid.
            series_cu_seqlens: boundaries of the series among the tokens that remain after masking.
            masks: indices of the tokens to keep, applied first.
            masks_enc: indices into what `masks` kept.
            features: "final" is normalised; "penultimate" is the stream before the last block.
        """
        for mask in (masks, masks_enc):
            if mask is not None:
                tokens, coords = tokens[mask], coords[mask]
        stream = iter(self.streams(tokens, coords, series_cu_seqlens))
        x = next(stream)
        last = len(self.blocks) - (features == "penultimate")
        for _ in range(last):
            x = next(stream)
        return x if features == "penultimate" else self._finish(x)

    def streams(
        self, tokens: Tensor, coords: Tensor, series_cu_seqlens: Tensor
    ) -> Iterator[Tensor]:
        """The float32 residual stream: the blocks' input, then what each block leaves."""
        segments = read_segments(series_cu_seqlens, tokens.shape[0])
        x = self.pos_drop(self.embed_tokens(tokens, coords)).float()
        yield x
        for block in self.blocks:
            x = block(x, segments)
            yield x

    def embed_tokens(self, tokens: Tensor, coords: Tensor) -> Tensor:
        """Token projection with the position code joined to it: [N, E]."""
        if coords.shape != (tokens.shape[0], 3):
            raise InputError(
                f"{tokens.shape[0]} tokens came with coordinates of shape {list(coords.shape)}: "
                "each token needs one (d, h, w)"
            )
        position = self.config.position
        if self.config.embed_layer == "linear":
            return self._project(_join(tokens, coords, position, rounded=self.rounded_positions))
        return _join(self._project(tokens), coords, position, rounded=self.rounded_positions)

    def attention_weights(
        self, tokens: Tensor, coords: Tensor, series_cu_seqlens: Tensor, *, series: int
    ) -> Tensor:
        """Attention of one series in the last block: [H, L, L]. For study of the model only."""
        index = len(self.blocks) - 1
        start, stop = read_segments(series_cu_seqlens, tokens.shape[0]).bounds[series]
        edges = torch.tensor([0, stop - start])
        stream = self.streams(tokens[start:stop], coords[start:stop], edges)
        x = next(stream)
        for _ in range(index):
            x = next(stream)
        block: Block = self.blocks[index]  # type: ignore[assignment]
        return block.attention_weights(x)

    def _project(self, tokens: Tensor) -> Tensor:
        return self.token_embed(tokens)  # type: ignore[no-any-return]

    def _finish(self, x: Tensor) -> Tensor:
        """Final norm; half precision inside autocast, where the reference returns it so."""
        out: Tensor = self.norm(x)
        if torch.is_autocast_enabled(x.device.type):
            return out.to(torch.get_autocast_dtype(x.device.type))
        return out

    def _init(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=self.config.init_std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class VoxelEmbed(nn.Module):
    """Linear projection of a (4, 16, 16) voxel block."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.embed_in, config.embed_out, bias=config.embed_bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, 1024] -> [N, E - position channels]."""
        return self.proj(tokens)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm transformer block over a float32 residual stream."""

    def __init__(self, config: EncoderConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        self.mixer = SeriesAttention(config)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        self.mlp = Mlp(config)
        self.drop = nn.Dropout(config.drop_rate)
        self.drop_path = drop_path

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        """[N, E] -> [N, E]."""
        x = x + self._thin(self.drop(self.mixer(self.norm1(x), segments)), segments)
        return x + self._thin(self.drop(self.mlp(self.norm2(x))), segments)

    def attention_weights(self, x: Tensor) -> Tensor:
        """Attention matrix of one series' stream: [H, L, L]."""
        q, k, _ = self.mixer.split(self.norm1(x))
        scores: Tensor = torch.einsum("lhd,mhd->hlm", q, k) * q.shape[-1] ** -0.5
        return scores.float().softmax(dim=-1)

    def _thin(self, branch: Tensor, segments: Segments) -> Tensor:
        """Stochastic depth, one draw a series."""
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = 1.0 - self.drop_path
        draws = torch.rand(len(segments.lengths), device=branch.device) < keep
        lengths = torch.tensor(segments.lengths, device=branch.device)
        return branch * (draws.repeat_interleave(lengths).unsqueeze(1) / keep)


class SeriesAttention(nn.Module):
    """Multi-head attention that never crosses from one series to another."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.heads = config.num_heads
        self.dropout = config.attn_drop_rate
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, segments: Segments) -> Tensor:
        """[N, E] -> [N, E]."""
        q, k, v = self.split(x)
        rate = self.dropout if self.training else 0.0
        mixed = segment_attention(q, k, v, segments, rate)
        return self.proj(mixed.flatten(1))  # type: ignore[no-any-return]

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [N, H, D]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(1)
        return q, k, v


class Mlp(nn.Module):
    """Two layers with the tanh approximation of GELU, as the reference's fused kernel has it."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        hidden = int(config.embed_dim * config.mlp_ratio)
        self.fc1 = nn.Linear(config.embed_dim, hidden)
        self.fc2 = nn.Linear(hidden, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[N, E] -> [N, E]."""
        return self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))  # type: ignore[no-any-return]


def _join(x: Tensor, coords: Tensor, position: PositionConfig | None, *, rounded: bool) -> Tensor:
    """Position codes beside (concat) or on top of (add) the features."""
    if position is None:
        return x
    check_positions(coords, position.limits)
    codes = encode_positions_3d(coords, position.channels)
    codes = (codes.to(torch.bfloat16) if rounded else codes).to(x.dtype) * position.factor
    return torch.cat((x, codes), dim=-1) if position.concat else x + codes

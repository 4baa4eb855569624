"""The vision connector: a perceiver that condenses each series to Q tokens, and a projection.

Module and parameter names are those of the official `vision_connector.pt`. Shape legend: N tokens
of all series, S series, Q queries, V width of the encoder, D width of the language model, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.checkpoints import load_strictly, read_state_dict
from inference.errors import ConfigError, InputError
from inference.neurovfm.weights import read_json
from inference.report.pack_section import ReportSection

NORM_EPS = 1e-5


@dataclass(frozen=True)
class ConnectorConfig:
    """Sizes of a connector."""

    vision_dim: int
    language_dim: int
    queries: int = 64
    layers: int = 6
    heads: int = 8
    dropout: float = 0.0
    hidden_dim: int = 0
    """Width between the two layers of the projection."""
    projection_dropout: float = 0.0


def read_config(settings: Mapping[str, Any], vision_dim: int, language_dim: int) -> ConnectorConfig:
    """Read an official `vision_connector_cf`.

    Raises:
        ConfigError: an unknown key or an impossible value, each named.
    """
    series = _known(settings, {"serie_perceiver", "mlp_hidden_dim", "mlp_drop"}, "").get(
        "serie_perceiver"
    )
    series = _known(series or {}, {"perceiver_cfg"}, "serie_perceiver")
    perceiver = _known(
        series.get("perceiver_cfg") or {},
        {"num_queries", "num_layers", "num_heads", "dropout"},
        "perceiver_cfg",
    )
    read = ConnectorConfig(
        vision_dim=vision_dim,
        language_dim=language_dim,
        queries=_whole(perceiver, "num_queries", 64),
        layers=_whole(perceiver, "num_layers", 6),
        heads=_whole(perceiver, "num_heads", 8),
        dropout=float(perceiver.get("dropout") or 0.0),
        hidden_dim=_whole(settings, "mlp_hidden_dim", language_dim),
        projection_dropout=float(settings.get("mlp_drop") or 0.0),
    )
    if vision_dim % read.heads:
        raise ConfigError(
            f"connector config: width {vision_dim} does not divide by {read.heads} heads"
        )
    return read


def load_connector(config: ConnectorConfig, weights: Path) -> VisionConnector:
    """Build a connector and load official weights into it, none of them left out.

    Raises:
        PackError: (WeightsError) missing, unexpected and mis-shaped keys are named.
    """
    model = VisionConnector(config)
    state = {key: value.float() for key, value in read_state_dict(weights).items()}
    load_strictly(model, state, weights.name)
    return model.eval().requires_grad_(False)


def pack_connector(directory: Path, section: ReportSection, vision_dim: int) -> VisionConnector:
    """The connector of a pack, between its encoder and its language model.

    Raises:
        PackError: (ConfigError, WeightsError) a file is missing or does not fit the other two.
    """
    settings = read_json(directory / section.connector.config)
    language = read_json(directory / section.language_model / "config.json")
    config = read_config(settings, vision_dim, _whole(language, "hidden_size", 0))
    return load_connector(config, directory / section.connector.weights)


class VisionConnector(nn.Module):
    """Embeddings of a study's series in, Q tokens a series out, in the language model's width.

    Runs in the precision of its parameters; the reference runs in bfloat16.
    """

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        self.config = config
        self.perceiver = Perceiver(config)
        self.mlp = Projection(config)

    def forward(self, visual: Tensor, lengths: Sequence[int]) -> Tensor:
        """Condense and project [N, V] embeddings of one study: [S, Q, D].

        A series without a token is shown as the projection of zeros; a study without any token as
        zeros, which is what the language model was trained with.

        Raises:
            InputError: the lengths do not cover the embeddings, or their width is another.
        """
        if visual.ndim != 2 or visual.shape[1] != self.config.vision_dim:
            raise InputError(
                f"embeddings of shape {list(visual.shape)} for a connector of width "
                f"{self.config.vision_dim}: use the encoder it was trained on"
            )
        if sum(lengths) != len(visual) or min(lengths, default=0) < 0:
            raise InputError(f"{len(lengths)} series do not cover {len(visual)} embeddings")
        queries = self.perceiver.queries
        if not len(visual):
            size = (len(lengths), self.config.queries, self.config.language_dim)
            return queries.new_zeros(size)
        filled = [length for length in lengths if length]
        condensed = self.perceiver(visual.to(queries.dtype), filled)
        series = queries.new_zeros(len(lengths), *condensed.shape[1:])
        places = [index for index, length in enumerate(lengths) if length]
        series = series.index_copy(0, torch.tensor(places, device=series.device), condensed)
        return self.mlp(series)  # type: ignore[no-any-return]


class Perceiver(nn.Module):
    """Learned queries that read a series by cross-attention; memory grows with Q x N only."""

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(config.queries, config.vision_dim) * 0.02)
        self.layers = nn.ModuleList(PerceiverLayer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.vision_dim, eps=NORM_EPS)

    def forward(self, visual: Tensor, lengths: Sequence[int]) -> Tensor:
        """[N, V] of series that all hold tokens -> [S, Q, V]."""
        x = self.queries.expand(len(lengths), -1, -1)
        for layer in self.layers:
            x = layer(x, visual, lengths)
        return self.final_norm(x)  # type: ignore[no-any-return]


class PerceiverLayer(nn.Module):
    """Queries attend to a series' tokens, never to each other; then a feed-forward network."""

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        width = config.vision_dim
        self.heads, self.dropout = config.heads, config.dropout
        self.norm_queries = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm_visual = nn.LayerNorm(width, eps=NORM_EPS)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.ffn = nn.Sequential(
            nn.LayerNorm(width, eps=NORM_EPS),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )

    def forward(self, x: Tensor, visual: Tensor, lengths: Sequence[int]) -> Tensor:
        """[S, Q, V] -> [S, Q, V]."""
        q = self.to_q(self.norm_queries(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.to_kv(self.norm_visual(visual)).unflatten(-1, (2, self.heads, -1)).unbind(1)
        mixed = self._attend(q, k, v, lengths).transpose(1, 2).flatten(2)
        x = x + self.to_out(mixed)
        return x + self.ffn(x)  # type: ignore[no-any-return]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
        """Series of equal length, such as the windows of a CT volume, share a kernel call.

        q [S, H, Q, V/H], k and v [N, H, V/H] -> [S, H, Q, V/H].
        """
        rate = self.dropout if self.training else 0.0
        parts, row, token = [], 0, 0
        for length, run in groupby(lengths):
            count = len(list(run))
            span = slice(token, token + count * length)
            keys, values = (
                t[span].reshape(count, length, *t.shape[1:]).transpose(1, 2) for t in (k, v)
            )
            asked = q[row : row + count]
            parts.append(
                functional.scaled_dot_product_attention(asked, keys, values, dropout_p=rate)
            )
            row, token = row + count, token + count * length
        return torch.cat(parts)


class Projection(nn.Module):
    """Two layers into the language model's width."""

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        hidden = config.hidden_dim or config.language_dim
        self.fc1 = nn.Linear(config.vision_dim, hidden)
        self.fc2 = nn.Linear(hidden, config.language_dim)
        self.drop = nn.Dropout(config.projection_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[..., V] -> [..., D]."""
        x = self.drop(functional.gelu(self.fc1(x)))
        return self.drop(self.fc2(x))  # type: ignore[no-any-return]


def _known(settings: Any, keys: set[str], where: str) -> Mapping[str, Any]:
    place = f"connector config {where}".rstrip()
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{place}: {settings!r} is no object")
    if unknown := sorted(set(settings) - keys):
        raise ConfigError(f"{place}: unknown keys {unknown}; known are {sorted(keys)}")
    return settings


def _whole(settings: Mapping[str, Any], key: str, default: int) -> int:
    value = settings.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"connector config: {key} = {value!r} is no number of at least 1")
    return value

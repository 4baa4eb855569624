"""The study model: a transformer over each series' tokens, then one over the study's series.

Legend: B studies, S series, n tokens of a series, D width of a series vector, E width of the study
embedding (registers x D). Parameter names are those of the published checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.errors import InputError
from inference.prima.hiervit_sizes import HierVitSize
from inference.prima.texts import build_text_encoder
from inference.prima.token_rows import token_rows
from inference.prima.transformer import Vit, pad_columns

TOKEN_BUDGET = 32768
"""Tokens of several series that pass the series transformer at once."""


class HierVit(nn.Module):
    """Series transformer, study transformer and the encoders of the two texts."""

    def __init__(self, size: HierVitSize) -> None:
        super().__init__()
        self.size = size
        self.dummy_param = nn.Parameter(torch.empty(0))
        self.innerViT = Vit(size.inner)
        self.outerViT = Vit(size.outer)
        self.patdisnet = _projector(size.discriminator) if size.discriminator else None
        self.serieencoder = build_text_encoder(size.series_name) if size.series_name else None
        self.studyencoder = (
            build_text_encoder(size.study_description) if size.study_description else None
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.dummy_param.device

    def token_rows(self, latents: Tensor, coords: Tensor, axis: int) -> Tensor:
        """Encoded tokens of a series as rows: [n, 256 + channels + 3]."""
        return token_rows(latents, coords, axis, self.size.position_channels)

    def name_rows(self, names: Sequence[Tensor]) -> Tensor | None:
        """Codes of series names as rows of the series transformer; None without an encoder."""
        return self.serieencoder(names) if self.serieencoder is not None else None

    def encode_series(
        self, rows: Sequence[Tensor], names: Tensor | None, budget: int = TOKEN_BUDGET
    ) -> Tensor:
        """One vector for each series: [S, D].

        Args:
            rows: tokens of each series, from `token_rows`.
            names: one row each, from `name_rows`.
            budget: tokens at a time.
        """
        if not rows:
            return self.outerViT.cls_token.new_zeros(0, self.size.inner.outputs)
        pooled = self.pool_series(rows, names, budget)
        vectors: Tensor = self.innerViT.mlp_head(pooled)
        return vectors

    def pool_series(
        self, rows: Sequence[Tensor], names: Tensor | None, budget: int = TOKEN_BUDGET
    ) -> Tensor:
        """Registers of the series transformer: [S, registers * width].

        Raises:
            InputError: a series has no tokens, or rows wider than the model.
        """
        width = self.innerViT.dim
        for series in rows:
            if not len(series) or series.shape[1] > width:
                raise InputError(f"series tokens {list(series.shape)} do not fit width {width}")
        pooled: list[Tensor] = []
        for start, stop in _within([len(series) for series in rows], budget):
            sequences = [pad_columns(series.to(self.device), width) for series in rows[start:stop]]
            if names is not None:
                chosen = names[start:stop].split(1)  # type: ignore[no-untyped-call]
                sequences = [torch.cat(pair) for pair in zip(chosen, sequences, strict=True)]
            pooled.append(self.innerViT.pool(sequences))
        return torch.cat(pooled)

    def encode_studies(
        self, series: Sequence[Tensor], descriptions: Sequence[Tensor] | None
    ) -> Tensor:
        """Study embeddings from the vectors [S, D] of each study's series: [B, E].

        Raises:
            InputError: a study without series, or descriptions that do not match the studies.
        """
        if any(not len(vectors) for vectors in series):
            raise InputError("a study without series has no embedding; leave it out")
        sequences = list(series)
        if self.studyencoder is not None:
            if descriptions is None or len(descriptions) != len(series):
                raise InputError("this model reads a description with every study; give one each")
            rows = self.studyencoder(descriptions)
            sequences = [torch.cat((row[None], v)) for row, v in zip(rows, series, strict=True)]
        return self.outerViT.pool(sequences)

    def clip_vectors(self, embeddings: Tensor) -> Tensor:
        """Vectors that training compares with those of report texts, length 1: [B, features]."""
        vectors: Tensor = self.outerViT.mlp_head(embeddings)
        return functional.normalize(vectors, dim=-1, eps=0.0)

    def discriminate(self, pooled_series: Tensor) -> Tensor:
        """Vectors of the patient-discrimination objective, from `pool_series`.

        Raises:
            InputError: the checkpoint was trained without it.
        """
        if self.patdisnet is None:
            raise InputError("the checkpoint holds no patient discriminator (patdisnet)")
        vectors: Tensor = self.patdisnet(pooled_series)
        return vectors


def _projector(widths: tuple[int, int, int]) -> nn.Sequential:
    before, between, after = widths
    return nn.Sequential(nn.Linear(before, between), nn.ReLU(), nn.Linear(between, after))


def _within(lengths: Sequence[int], budget: int) -> Iterator[tuple[int, int]]:
    """Neighbours that fit the budget together, at least one at a time."""
    start, tokens = 0, 0
    for place, length in enumerate(lengths):
        if place > start and tokens + length > budget:
            yield start, place
            start, tokens = place, 0
        tokens += length
    yield start, len(lengths)

"""The three stages of Prima as one object: series to vectors, vectors to an embedding, to answers.

Each stage can be run alone, so that an explanation may change the tokens of one series and keep
the vectors of the others. Legend: n tokens of a series, S series, D width of a series vector, E
width of the study embedding, M variants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.errors import InputError, OutOfMemoryError
from inference.manifest import HeadKind
from inference.prima.heads import HeadOutputs, StackedHeads
from inference.prima.hiervit import TOKEN_BUDGET, HierVit
from inference.prima.names import char_codes


@dataclass(frozen=True, eq=False)
class EncodedSeries:
    """A series as the tokenizer gives it.

    Attributes:
        latents: [n, 2, ...] on any device.
        coords: int [n, 3], first voxel (z, y, x) of each token.
        axis: the thin one.
        name: of the series.
    """

    latents: Tensor
    coords: Tensor
    axis: int
    name: str


@dataclass(frozen=True)
class HeadReader:
    """A stack of heads and which output of each answers its label; no indices: all outputs."""

    stack: StackedHeads
    indices: tuple[int, ...] = ()

    def read(self, embeddings: Tensor) -> Tensor:
        """[B, E] -> [B, L], or all outputs of the only network [B, O]; float32 on the host."""
        found = self.stack.chosen(embeddings, self.indices) if self.indices else None
        answer = self.stack(embeddings)[:, 0] if found is None else found
        return answer.float().cpu()


class PrimaModel:
    """Study model and heads on their device; half precision on a GPU, as the reference."""

    def __init__(self, visual: HierVit, heads: Mapping[HeadKind, HeadReader]) -> None:
        """Take parts that are on their device and in evaluation mode."""
        self.visual = visual
        self._heads = dict(heads)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.visual.device

    def encode_series(self, tokens: Tensor, coords: Tensor, axis: int, name: str) -> Tensor:
        """The vector of one series: [D]."""
        return self.encode_all([EncodedSeries(tokens, coords, axis, name)])[0]

    def encode_all(self, series: Sequence[EncodedSeries], budget: int = TOKEN_BUDGET) -> Tensor:
        """The vectors of several series: [S, D].

        Args:
            series: of one study or of many.
            budget: tokens at a time.

        Raises:
            OutOfMemoryError: the budget is too large for the device.
        """
        with self._running():
            names = self.visual.name_rows([self._codes(one.name) for one in series])
            return self.visual.encode_series([self.rows(one) for one in series], names, budget)

    def rows(self, series: EncodedSeries) -> Tensor:
        """A series' tokens as rows of the series transformer, on the device: [n, columns]."""
        latents = series.latents.to(self.device, torch.float32)
        return self.visual.token_rows(latents, series.coords.to(self.device), series.axis)

    def encode_variants(
        self, series: EncodedSeries, keep: Tensor, budget: int = TOKEN_BUDGET
    ) -> Tensor:
        """Vectors of a series with some of its tokens left out: [M, D].

        Rows and name are computed once. A left-out token is absent, not zero: attention never
        meets it, just as a token that the foreground filter dropped.

        Args:
            series: all tokens.
            keep: bool [M, n], the tokens that each variant has; at least one each.
            budget: tokens at a time.

        Raises:
            InputError: the mask does not fit the tokens, or leaves a variant none.
        """
        if keep.ndim != 2 or keep.shape[1] != len(series.latents) or not keep.any(dim=1).all():
            raise InputError(
                f"mask {list(keep.shape)} for {len(series.latents)} tokens: it must be [variants, "
                "tokens] and keep one token or more in each"
            )
        with self._running():
            rows, keep = self.rows(series), keep.to(self.device)
            # Neighbours of equal length share one attention call.
            order = keep.sum(dim=1).argsort(stable=True)
            name = self.visual.name_rows([self._codes(series.name)])
            names = None if name is None else name.expand(len(keep), -1)
            variants = [rows[mask] for mask in keep[order]]
            vectors = self.visual.encode_series(variants, names, budget)
            return vectors[order.argsort()]

    def encode_study(self, series_vectors: Tensor, description: str) -> Tensor:
        """Embedding of a study, [S, D] -> [E], or of variants of it, [M, S, D] -> [M, E]."""
        several = series_vectors if series_vectors.ndim == 3 else series_vectors[None]
        found = self.encode_studies(list(several), [description] * len(several))
        return found if series_vectors.ndim == 3 else found[0]

    def encode_studies(self, series: Sequence[Tensor], descriptions: Sequence[str]) -> Tensor:
        """Embeddings of several studies with any number of series each: [B, E]."""
        with self._running():
            known = {text: self._codes(text) for text in dict.fromkeys(descriptions)}
            vectors = [one.to(self.device) for one in series]
            return self.visual.encode_studies(vectors, [known[text] for text in descriptions])

    def heads(self, embedding: Tensor) -> HeadOutputs:
        """What every head says: raw outputs on the host, [L] for [E] or [B, L] for [B, E]."""
        several = embedding if embedding.ndim == 2 else embedding[None]
        with torch.inference_mode():
            answers = {
                str(kind): head.read(several.to(self.device, head.stack.dtype))
                for kind, head in self._heads.items()
            }
        if embedding.ndim == 1:
            answers = {kind: answer[0] for kind, answer in answers.items()}
        return HeadOutputs(**answers)

    def _codes(self, text: str) -> Tensor:
        return torch.from_numpy(char_codes(text)).to(self.device)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """No gradients, half precision on a GPU, our own error when its memory is too small."""
        half = torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda")
        try:
            with torch.inference_mode(), half:
                yield
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                "the series' tokens do not fit the device's memory at once"
            ) from error

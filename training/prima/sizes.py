"""Sizes of the networks that are trained, as a run's file states them; defaults as published."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from inference.prima.hiervit_sizes import HeadCounts, HierVitSize
from inference.prima.names import END
from inference.prima.texts import TextSize
from inference.prima.token_rows import POSITION_CHANNELS
from inference.prima.transformer import TransformerSize, VitSize

TOKEN_WIDTH = 256 + POSITION_CHANNELS + 3


@dataclass(frozen=True)
class Layers:
    """A stack of transformer layers."""

    depth: int
    heads: int
    dim_head: int
    mlp: int

    def sized(self, dim: int) -> TransformerSize:
        """At a width; one head of the full width needs no projection, as in the reference."""
        projected = not (self.heads == 1 and self.dim_head == dim)
        return TransformerSize(dim, self.depth, self.heads, self.dim_head, self.mlp, projected)


@dataclass(frozen=True)
class NameSize:
    """A character encoder: embedded characters beside the code of their place."""

    embedded: int = 246
    places: int = 10
    layers: Layers = Layers(3, 4, 64, 300)

    def sized(self, outputs: int, after: int | None = None) -> TextSize:
        """`after`: width of the layer behind a pre-trained encoder."""
        layers = self.layers.sized(self.embedded + self.places)
        return TextSize(END + 1, self.embedded, layers, outputs, after)


@dataclass(frozen=True)
class StudySize:
    """The study model.

    Attributes:
        inner, inner_registers: the series transformer.
        series: width of a series' vector, and of the study transformer.
        outer, outer_registers: the study transformer.
        features: width of the vectors compared with reports.
        names: both character encoders.
        discriminator: hidden and output width of the patient discriminator.
    """

    inner: Layers = Layers(15, 16, 64, 1024)
    inner_registers: int = 20
    series: int = 1024
    outer: Layers = Layers(4, 8, 64, 1024)
    outer_registers: int = 10
    features: int = 128
    names: NameSize = NameSize()
    discriminator: tuple[int, int] = (500, 128)

    def sized(self, *, name_outputs: int | None) -> HierVitSize:
        """Sizes of the network.

        Args:
            name_outputs: of a series-name encoder trained before; None = it is trained along.
        """
        if name_outputs is None:
            names = self.names.sized(TOKEN_WIDTH)
        else:
            names = self.names.sized(name_outputs, TOKEN_WIDTH)
        return HierVitSize(
            inner=VitSize(self.inner.sized(TOKEN_WIDTH), self.inner_registers, self.series),
            outer=VitSize(self.outer.sized(self.series), self.outer_registers, self.features),
            series_name=names,
            study_description=self.names.sized(self.series),
            discriminator=(self.inner_registers * TOKEN_WIDTH, *self.discriminator),
        )

    def counts(self) -> dict[str, Any]:
        """What tensors do not tell, as a pack's encoder configuration."""
        heads = self.names.layers.heads
        return asdict(HeadCounts(self.inner.heads, self.outer.heads, heads, heads))

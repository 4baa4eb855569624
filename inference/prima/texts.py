"""Character-level encoders of series names and study descriptions.

Legend: T texts, L characters of one, D width. Codes 1 to 45 are characters, 46 the end, 0 padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inference.errors import InputError
from inference.prima.names import END
from inference.prima.transformer import Transformer, TransformerSize, join_lengths


@dataclass(frozen=True)
class TextSize:
    """Sizes of a text encoder; `after` is the layer behind a pre-trained one, else None."""

    codes: int
    embedded: int
    layers: TransformerSize
    outputs: int
    after: int | None = None


class TextEncoder(nn.Module):
    """Embedded characters with their place; the end's output stands for the text."""

    def __init__(self, size: TextSize) -> None:
        super().__init__()
        self.embed = nn.Embedding(size.codes, size.embedded)
        self.transformer = Transformer(size.layers)
        self.linear = nn.Linear(size.layers.dim, size.outputs)

    def forward(self, texts: Sequence[Tensor]) -> Tensor:
        """Codes of each text, its end included, padding after it ignored: [T, outputs]."""
        vectors: Tensor = self.linear(self.features(texts))
        return vectors

    def features(self, texts: Sequence[Tensor]) -> Tensor:
        """The same before the last layer: [T, D]."""
        device = self.embed.weight.device
        cut = [_up_to_end(text).to(device) for text in texts]
        lengths = [len(text) for text in cut]
        characters = self.embed(torch.cat(cut))
        channels = self.linear.in_features - characters.shape[1]
        places = torch.cat([torch.arange(n, device=device) for n in lengths])
        codes = encode_positions_1d(places, channels).to(characters.dtype)
        segments = join_lengths(lengths, device)
        out: Tensor = self.transformer(torch.cat((characters, codes), dim=1), segments)
        return out[torch.tensor(lengths, device=device).cumsum(0) - 1]


class PretrainedTextEncoder(nn.Sequential):
    """An encoder trained before, whose own last layer is bypassed, and a layer of this model."""

    def __init__(self, size: TextSize, outputs: int) -> None:
        super().__init__(TextEncoder(size), nn.Linear(size.layers.dim, outputs))

    def forward(self, texts: Sequence[Tensor]) -> Tensor:
        """Codes of each text: [T, outputs]."""
        encoder, linear = self
        vectors: Tensor = linear(encoder.features(texts))  # type: ignore[operator]
        return vectors


def build_text_encoder(size: TextSize) -> TextEncoder | PretrainedTextEncoder:
    """The encoder in the layout that its sizes tell."""
    return TextEncoder(size) if size.after is None else PretrainedTextEncoder(size, size.after)


def encode_positions_1d(places: Tensor, channels: int) -> Tensor:
    """Sine and cosine of each place, alternating: float32 [n, channels]."""
    exponents = torch.arange(0, channels, 2, device=places.device).float() / channels
    angles = places.float().unsqueeze(-1) / 10000**exponents
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :channels]


def _up_to_end(text: Tensor) -> Tensor:
    ends = (text == END).nonzero()
    if len(ends) != 1:
        raise InputError(f"a text has {len(ends)} end codes ({END}); it must have one")
    return text[: int(ends[0]) + 1].long()

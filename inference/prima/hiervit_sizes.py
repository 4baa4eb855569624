"""Sizes of the study model, read off a checkpoint's tensors.

Only the numbers of attention heads are not in the shapes; they come beside the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from inference.errors import ConfigError, WeightsError
from inference.prima.texts import TextSize
from inference.prima.token_rows import POSITION_CHANNELS
from inference.prima.transformer import TransformerSize, VitSize

LATENT_VALUES = 256
AXES = 3


@dataclass(frozen=True)
class HeadCounts:
    """What shapes do not tell: attention heads of each transformer, width of the place code.

    The defaults are the published model's.
    """

    inner: int = 16
    outer: int = 8
    series_name: int = 4
    study_description: int = 4
    position_channels: int = POSITION_CHANNELS


@dataclass(frozen=True)
class HierVitSize:
    """Sizes of all parts; None where the checkpoint has no such part."""

    inner: VitSize
    outer: VitSize
    series_name: TextSize | None
    study_description: TextSize | None
    discriminator: tuple[int, int, int] | None
    position_channels: int = POSITION_CHANNELS

    @property
    def embedding(self) -> int:
        """Width of a study embedding."""
        return self.outer.registers * self.outer.layers.dim


def read_head_counts(settings: Mapping[str, Any]) -> HeadCounts:
    """Read the pack's encoder configuration.

    Raises:
        ConfigError: an unknown key, or a value that is no positive whole number.
    """
    known = set(HeadCounts.__dataclass_fields__)
    for key, value in settings.items():
        if key not in known:
            raise ConfigError(f"config.json: {key}: unknown setting; known: {sorted(known)}")
        if type(value) is not int or value < 1:
            raise ConfigError(f"config.json: {key}: {value!r} is no positive whole number")
    return HeadCounts(**settings)


def read_sizes(state: Mapping[str, Tensor], counts: HeadCounts) -> HierVitSize:
    """Sizes of the model that these tensors belong to.

    Raises:
        WeightsError: a tensor that tells a size is missing, or sizes contradict each other.
    """
    tensors = _Tensors(state)
    sizes = HierVitSize(
        inner=_vit(tensors, "innerViT.", counts.inner),
        outer=_vit(tensors, "outerViT.", counts.outer),
        series_name=_text(tensors, "serieencoder.", counts.series_name),
        study_description=_text(tensors, "studyencoder.", counts.study_description),
        discriminator=_discriminator(tensors),
        position_channels=counts.position_channels,
    )
    _check(sizes)
    return sizes


class _Tensors:
    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state

    def has(self, key: str) -> bool:
        return key in self._state

    def shape(self, key: str, dimensions: int) -> tuple[int, ...]:
        if key not in self._state:
            raise WeightsError(f"{key}: missing; this is no checkpoint of a study model")
        shape = tuple(self._state[key].shape)
        if len(shape) != dimensions:
            raise WeightsError(f"{key}: {len(shape)} dimensions instead of {dimensions}")
        return shape

    def layers(self, prefix: str) -> int:
        pattern = re.compile(re.escape(prefix) + r"layers\.(\d+)\.")
        found = {int(m.group(1)) for key in self._state if (m := pattern.match(key))}
        if found != set(range(len(found))) or not found:
            raise WeightsError(f"{prefix}layers: not numbered from 0 without a gap")
        return len(found)


def _vit(tensors: _Tensors, prefix: str, heads: int) -> VitSize:
    _, registers, _ = tensors.shape(f"{prefix}cls_token", 3)
    outputs, _ = tensors.shape(f"{prefix}mlp_head.0.weight", 2)
    return VitSize(_transformer(tensors, f"{prefix}transformer.", heads), registers, outputs)


def _transformer(tensors: _Tensors, prefix: str, heads: int) -> TransformerSize:
    first = f"{prefix}layers.0."
    qkv, dim = tensors.shape(f"{first}0.fn.to_qkv.weight", 2)
    mlp, _ = tensors.shape(f"{first}1.fn.net.0.weight", 2)
    if qkv % (3 * heads):
        raise WeightsError(f"{first}0.fn.to_qkv: {qkv} rows do not divide into {heads} heads")
    projected = tensors.has(f"{first}0.fn.to_out.0.weight")
    if not projected and qkv != 3 * dim:
        raise WeightsError(f"{first}0.fn.to_out: missing though heads and width differ")
    return TransformerSize(dim, tensors.layers(prefix), heads, qkv // 3 // heads, mlp, projected)


def _text(tensors: _Tensors, prefix: str, heads: int) -> TextSize | None:
    pretrained = tensors.has(f"{prefix}0.embed.weight")
    if not pretrained and not tensors.has(f"{prefix}embed.weight"):
        return None
    own = f"{prefix}0." if pretrained else prefix
    codes, embedded = tensors.shape(f"{own}embed.weight", 2)
    outputs, _ = tensors.shape(f"{own}linear.weight", 2)
    layers = _transformer(tensors, f"{own}transformer.", heads)
    after = tensors.shape(f"{prefix}1.weight", 2)[0] if pretrained else None
    return TextSize(codes, embedded, layers, outputs, after)


def _discriminator(tensors: _Tensors) -> tuple[int, int, int] | None:
    if not tensors.has("patdisnet.0.weight"):
        return None
    between, before = tensors.shape("patdisnet.0.weight", 2)
    return before, between, tensors.shape("patdisnet.2.weight", 2)[0]


def _check(sizes: HierVitSize) -> None:
    inner, outer = sizes.inner.layers.dim, sizes.outer.layers.dim
    row = LATENT_VALUES + sizes.position_channels + AXES
    if inner < row:
        raise WeightsError(f"innerViT: {inner} wide, but tokens are {row}")
    if sizes.inner.outputs != outer:
        raise WeightsError(f"innerViT gives {sizes.inner.outputs} values, outerViT reads {outer}")
    for name, text, wanted in (
        ("serieencoder", sizes.series_name, inner),
        ("studyencoder", sizes.study_description, outer),
    ):
        if text is not None and (text.after or text.outputs) != wanted:
            raise WeightsError(f"{name}: its output does not have the transformer's width {wanted}")

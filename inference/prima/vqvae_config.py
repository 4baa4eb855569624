"""The tokenizer's configuration as the official `vqvae_config` states it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference.errors import ConfigError

Down = tuple[int, int, int, int]
Up = tuple[int, int, int, int, int]

FIXED = {
    "spatial_dims": 3,
    "dropout": 0.0,
    "act": "RELU",
    "output_act": None,
}
"""Settings that have one value in the published model; another is refused."""
IGNORED = ("ckpt_path", "embedding_init", "ddp_sync", "use_checkpointing")
"""Settings that do not change what the model computes."""


@dataclass(frozen=True)
class TokenizerConfig:
    """Sizes of encoder, decoder and codebook.

    Attributes:
        down: stride, kernel, dilation, padding of each strided convolution.
        up: the same of each transposed one, and its output padding.
        decay: share of the old running mean that a training step keeps.
    """

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    res_channels: tuple[int, ...]
    res_layers: int
    down: tuple[Down, ...]
    up: tuple[Up, ...]
    codes: int
    code_width: int
    commitment: float = 0.25
    decay: float = 0.5
    epsilon: float = 1e-5


def read_tokenizer_config(settings: Mapping[str, Any]) -> TokenizerConfig:
    """Read `vqvae_config` (or the whole file around it); unknown settings are refused.

    Raises:
        ConfigError: a setting is missing, unknown or wrong; the message names it.
    """
    inner = settings.get("vqvae_config", settings.get("model", settings))
    if not isinstance(inner, Mapping):
        raise ConfigError("vqvae_config: not an object with the tokenizer's settings")
    left = {key: value for key, value in inner.items() if key not in IGNORED}
    for key, value in FIXED.items():
        if (found := left.pop(key, value)) != value:
            raise ConfigError(f"vqvae_config: {key} is {found!r}; only {value!r} is known")
    channels = "channels" if "channels" in left else "num_channels"
    try:
        config = TokenizerConfig(
            in_channels=_number(left, "in_channels"),
            out_channels=_number(left, "out_channels"),
            channels=tuple(int(n) for n in left.pop(channels)),
            res_channels=tuple(int(n) for n in left.pop("num_res_channels")),
            res_layers=_number(left, "num_res_layers"),
            down=tuple(_four(row) for row in left.pop("downsample_parameters")),
            up=tuple(_five(row) for row in left.pop("upsample_parameters")),
            codes=_number(left, "num_embeddings"),
            code_width=_number(left, "embedding_dim"),
            commitment=float(left.pop("commitment_cost", 0.25)),
            decay=float(left.pop("decay", 0.5)),
            epsilon=float(left.pop("epsilon", 1e-5)),
        )
    except KeyError as error:
        raise ConfigError(f"vqvae_config: {error.args[0]} is missing") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"vqvae_config: not numbers where numbers belong ({error})") from error
    if left:
        raise ConfigError(f"vqvae_config: {min(left)}: unknown setting; remove or correct it")
    _check(config)
    return config


def _check(config: TokenizerConfig) -> None:
    counts = {len(config.channels), len(config.res_channels), len(config.down), len(config.up)}
    if counts != {len(config.channels)} or not config.channels:
        raise ConfigError(
            "vqvae_config: channels, num_res_channels, downsample_parameters and "
            "upsample_parameters must have equal, positive lengths"
        )
    sizes = (config.in_channels, config.out_channels, config.codes, config.code_width)
    if min(*sizes, *config.channels, *config.res_channels) < 1:
        raise ConfigError("vqvae_config: sizes must be 1 or more")


def _number(settings: dict[str, Any], key: str) -> int:
    return int(settings.pop(key))


def _four(row: Any) -> Down:
    stride, kernel, dilation, padding = (int(n) for n in row)
    return stride, kernel, dilation, padding


def _five(row: Any) -> Up:
    stride, kernel, dilation, padding, extra = (int(n) for n in row)
    return stride, kernel, dilation, padding, extra

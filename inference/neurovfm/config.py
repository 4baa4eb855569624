"""Reads official configuration files into frozen values and refuses what the models lack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from inference.errors import ConfigError

TOKEN_VALUES = 1024
"""Voxels of one token: 4 x 16 x 16."""

PRESETS: Mapping[str, tuple[int, int, int]] = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
"""Named sizes: embedding width, depth, heads."""

_IGNORED = frozenset({"act_layer", "norm_layer", "use_flash_attn", "fused_bias_fc"})
"""Accepted and without effect, as in the reference (its MLP is always tanh GELU)."""


@dataclass(frozen=True)
class PositionConfig:
    """Sine-cosine position code of a token's (d, h, w)."""

    channels: int
    limits: tuple[int, int, int]
    factor: float
    concat: bool


@dataclass(frozen=True)
class EncoderConfig:
    """Everything that shapes a `VisionTransformer`."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    qkv_bias: bool
    embed_layer: Literal["voxel", "linear"]
    embed_in: int
    embed_out: int
    embed_bias: bool
    position: PositionConfig | None
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    init_std: float = 0.02


@dataclass(frozen=True)
class HeadConfig:
    """Everything that shapes a diagnostic head."""

    which: Literal["classify_then_aggregate", "aggregate_then_classify"]
    dim: int
    hidden_dim: int
    outputs: int
    gating: bool
    norm: bool
    drop_rate: float
    mlp_hidden_dims: tuple[int, ...] = ()
    mlp_outputs: int = 0
    output_scale: bool = False
    proj_dims: tuple[int, ...] | None = None
    """Widths of the classifier after an aggregate-first pooler, the last one the labels."""


def read_encoder_config(config: Mapping[str, Any]) -> EncoderConfig:
    """Read an encoder's {"which", "params"}.

    Raises:
        ConfigError: an unknown model, key or value, each named.
    """
    _expect(config, {"which", "params"}, "encoder config")
    which, params = config.get("which"), dict(config.get("params") or {})
    width, depth, heads = _size(which, params)
    if params.pop("prefix_len", 0) != 0:
        raise ConfigError("encoder config: prefix_len must be 0; prefix tokens are not supported")
    position = _read_position(params.pop("pos_emb_cf", None), width)
    layer, embed_in, embed_out, bias = _read_embed(params, width, position)
    read = EncoderConfig(
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=float(params.pop("mlp_ratio", 4.0)),
        qkv_bias=bool(params.pop("qkv_bias", True)),
        embed_layer=layer,
        embed_in=embed_in,
        embed_out=embed_out,
        embed_bias=bias,
        position=position,
        drop_rate=float(params.pop("drop_rate", 0.0)),
        attn_drop_rate=float(params.pop("attn_drop_rate", 0.0)),
        drop_path_rate=float(params.pop("drop_path_rate", 0.0)),
        init_std=float(params.pop("init_std", 0.02)),
    )
    _expect(params, _IGNORED, "encoder config params")
    if width % heads:
        raise ConfigError(f"encoder config: embed_dim {width} does not divide by {heads} heads")
    return read


def read_head_config(config: Mapping[str, Any], dim: int) -> HeadConfig:
    """Read a head's {"which", "params"}, or the training system's {"pooler_cf", "proj_params"}.

    Raises:
        ConfigError: an unknown pooler, key or value, each named.
    """
    if "pooler_cf" in config:
        return _read_classifier(config, dim)
    _expect(config, {"which", "params"}, "head config")
    params = dict(config.get("params") or {})
    which = config.get("which")
    first = which == "classify_then_aggregate"
    if which not in ("classify_then_aggregate", "aggregate_then_classify"):
        raise ConfigError(
            f"head config: which = {which!r} is unknown; it is classify_then_aggregate or "
            "aggregate_then_classify"
        )
    outputs = _whole(params.pop("W_out", 1), "head config W_out")
    hidden_dims, mlp_outputs = _read_patch_classifier(params, outputs) if first else ((), 0)
    read = HeadConfig(
        which=which,
        dim=_whole(params.pop("dim", dim) or dim, "head config dim"),
        hidden_dim=_whole(params.pop("hidden_dim", None) or dim, "head config hidden_dim"),
        outputs=outputs,
        gating=bool(params.pop("use_gating", True)),
        norm=bool(params.pop("use_norm", not first)),
        drop_rate=float(params.pop("drop_rate", 0.0)),
        mlp_hidden_dims=hidden_dims,
        mlp_outputs=mlp_outputs,
        output_scale=bool(params.pop("use_output_bias_scale", True)) if first else False,
    )
    _expect(params, set(), "head config params")
    return read


def _size(which: object, params: dict[str, Any]) -> tuple[int, int, int]:
    name = str(which).removeprefix("vit_")
    if which != "vit" and name not in PRESETS:
        known = ", ".join(["vit", *PRESETS])
        raise ConfigError(f"encoder config: which = {which!r} is unknown; it is one of {known}")
    preset = PRESETS.get(name, (None, None, None))
    keys = ("embed_dim", "depth", "num_heads")
    read = [params.pop(key, None) or size for key, size in zip(keys, preset, strict=True)]
    width, depth, heads = (
        _whole(v, f"encoder config {k}") for k, v in zip(keys, read, strict=True)
    )
    return width, depth, heads


def _read_position(config: Mapping[str, Any] | None, width: int) -> PositionConfig | None:
    if config is None:
        return None
    _expect(config, {"which", "params"}, "pos_emb_cf")
    if config.get("which") != "pe3d":
        raise ConfigError(f"pos_emb_cf: which = {config.get('which')!r} is unknown; it is pe3d")
    params = dict(config.get("params") or {})
    depth, plane = int(params.pop("d_size", 128)), int(params.pop("hw_size", 192))
    concat = bool(params.pop("concat", True))
    channels, features = int(params.pop("d", 30)), int(params.pop("in_dim", width))
    factor = float(params.pop("pe_factor", 1.0))
    _expect(params, set(), "pos_emb_cf params")
    return PositionConfig(
        channels=channels if concat else features,
        limits=(depth, plane, plane),
        factor=factor,
        concat=concat,
    )


def _read_embed(
    params: dict[str, Any], width: int, position: PositionConfig | None
) -> tuple[Literal["voxel", "linear"], int, int, bool]:
    """Kind of token embedding, its input and output width and whether it has a bias."""
    token_dim = int(params.pop("token_dim", 259))
    config = params.pop("embed_layer_cf", None) or {"which": "linear"}
    _expect(config, {"which", "params"}, "embed_layer_cf")
    which, options = config.get("which"), dict(config.get("params") or {})
    extra = position.channels if position is not None and position.concat else 0
    bias = bool(options.pop("bias", True))
    if which == "linear":
        _expect(options, {"embed_dim", "in_dim", *_IGNORED}, "embed_layer_cf params")
        return "linear", token_dim + extra, width, bias
    if which != "voxel":
        raise ConfigError(f"embed_layer_cf: which = {which!r} is unknown; it is voxel or linear")
    sides = (options.pop("patch_d_size", 4), *[options.pop("patch_hw_size", 16)] * 2)
    values = int(options.pop("in_chans", 1)) * sides[0] * sides[1] * sides[2]
    made = int(options.pop("embed_dim", width - extra))
    _expect(options, _IGNORED, "embed_layer_cf params")
    if made + extra != width:
        raise ConfigError(
            f"embed_layer_cf: {made} token channels and {extra} position channels do not make "
            f"embed_dim {width}"
        )
    return "voxel", values, made, bias


def _read_patch_classifier(params: dict[str, Any], outputs: int) -> tuple[tuple[int, ...], int]:
    hidden = params.pop("mlp_hidden_dims", None)
    if hidden is None:
        raise ConfigError(
            "head config: mlp_hidden_dims is missing; classify_then_aggregate needs a list of "
            "hidden widths, [] for a linear classifier"
        )
    made = _whole(params.pop("mlp_out_dim", None) or outputs, "head config mlp_out_dim")
    if made not in (1, outputs):
        raise ConfigError(f"head config: mlp_out_dim {made} must be 1 or W_out ({outputs})")
    return tuple(int(width) for width in hidden), made


def _read_classifier(config: Mapping[str, Any], dim: int) -> HeadConfig:
    """The training system's layout: a pooler and a classifier on what it pooled."""
    _expect(config, {"pooler_cf", "proj_params"}, "head config")
    pooler = read_head_config(config["pooler_cf"], dim)
    params = dict(config.get("proj_params") or {})
    widths = (*params.pop("hidden_dims", ()), params.pop("out_dim", 0))
    _expect(params, {"drop_rate"}, "proj_params")
    if pooler.which != "aggregate_then_classify" or pooler.outputs != 1:
        raise ConfigError(
            "head config: proj_params go with an aggregate_then_classify pooler of W_out 1"
        )
    dims = tuple(_whole(width, "proj_params width") for width in widths)
    return HeadConfig(**{**vars(pooler), "proj_dims": dims})


def _whole(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} is {value!r}: it must be a whole number above 0")
    return value


def _expect(found: Mapping[str, Any], known: set[str] | frozenset[str], where: str) -> None:
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise ConfigError(f"{where}: unknown key {', '.join(unknown)}; known: {sorted(known)}")

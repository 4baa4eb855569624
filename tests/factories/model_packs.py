"""Tiny model packs: random ones that only run, and one built by hand that finds bright tissue."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from inference import packs
from inference.findings import Acuity, Code
from inference.neurovfm.heads import build_head
from inference.neurovfm.model import build_encoder

WIDTH = 64
POSITION_CHANNELS = 30


def encoder_config(field_tokens: tuple[int, int] = (128, 192)) -> dict[str, Any]:
    """An official configuration of a very small encoder; its field is (depth, plane) tokens."""
    position = {"d": POSITION_CHANNELS, "d_size": field_tokens[0], "hw_size": field_tokens[1]}
    return {
        "which": "vit",
        "params": {
            "embed_dim": WIDTH,
            "depth": 2,
            "num_heads": 2,
            "embed_layer_cf": {"which": "voxel", "params": {}},
            "pos_emb_cf": {"which": "pe3d", "params": position},
        },
    }


def label(identifier: str, **changes: Any) -> packs.Label:
    """A label with a made-up code; any field can be changed."""
    fields: dict[str, Any] = {
        "id": identifier,
        "display": identifier.replace("_", " ").capitalize(),
        "acuity": Acuity.URGENT,
        "threshold": 0.5,
        "code": Code("1386000", "SCT", "Intracranial hemorrhage"),
        "site": Code("12738006", "SCT", "Brain"),
    }
    return packs.Label(**{**fields, **changes})


def random_pack(
    directory: Path,
    *,
    name: str = "random",
    which: str = "classify_then_aggregate",
    ct: tuple[packs.Label, ...] = (label("bleed", threshold=0.0), label("fracture")),
    mr: tuple[packs.Label, ...] = (label("tumor", threshold=0.0),),
    seed: int = 7,
    field_tokens: tuple[int, int] = (128, 192),
) -> Path:
    """A pack with random weights; a threshold of 0 makes its label always present."""
    torch.manual_seed(seed)
    settings = encoder_config(field_tokens)
    _save(directory / "encoder", settings, build_encoder(settings))
    for modality, labels in (("ct", ct), ("mr", mr)):
        config = head_config(which, len(labels))
        _save(directory / modality, config, build_head(config, WIDTH))
    return _write(directory, name, {"CT": ct, "MR": mr})


def bright_pack(directory: Path, *, name: str = "bright", level: float = 0.55) -> Path:
    """A pack whose one label is bright tissue: tokens whose mean exceeds `level` of the window.

    Attention and token logits both follow the token's mean, so grounding must lie on it.
    """
    settings = encoder_config()
    encoder, config = build_encoder(settings), head_config("classify_then_aggregate", 1)
    head = build_head(config, WIDTH)
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *head.parameters()):
            parameter.zero_()
        _pass_the_mean_through(encoder)
        # Channel 0 is now about the token's normalised mean over 20; see _pass_the_mean_through.
        head.attention_V.weight[0, 0] = 10.0
        head.W.weight[0, 0] = 30.0
        head.mlp.mlp[0].weight[0, 0] = 200.0
        head.mlp.mlp[0].bias[0] = -200.0 * (level - 0.4139) / 0.4059 / 20
        head.output_scale.fill_(1.0)
    _save(directory / "encoder", settings, encoder)
    labels = (label("bright_tissue"),)
    for modality in ("ct", "mr"):
        _save(directory / modality, config, head)
    return _write(directory, name, {"CT": labels, "MR": labels})


def head_config(which: str, outputs: int) -> dict[str, Any]:
    """An official head configuration."""
    if which == "classify_then_aggregate":
        params = {"W_out": outputs, "mlp_hidden_dims": [], "use_gating": False, "hidden_dim": 8}
        return {"which": which, "params": params}
    return {
        "pooler_cf": {"which": which, "params": {"W_out": 1, "hidden_dim": 8}},
        "proj_params": {"out_dim": outputs, "hidden_dims": []},
    }


def _pass_the_mean_through(encoder: nn.Module) -> None:
    """Channel 0 carries the mean of a token; two large constants keep the norm's scale fixed."""
    embed = encoder.token_embed.proj
    embed.weight[0].fill_(1 / 1024)
    embed.bias[1], embed.bias[2] = 113.0, -113.0  # their share of the variance: 20 squared
    encoder.norm.weight[:3].fill_(1.0)


def _save(directory: Path, config: dict[str, Any], model: nn.Module) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, directory / "model.safetensors")


def _write(directory: Path, name: str, labels: dict[str, tuple[packs.Label, ...]]) -> Path:
    packs.write_manifest(
        directory,
        packs.Manifest(
            name=name,
            version="1.0.0",
            family="neurovfm",
            title="Made for tests",
            licence="MIT",
            notice="Research use only.",
            created=dt.date(2026, 11, 23),
            demonstration=True,
            encoder=_files("encoder"),
            heads=tuple(
                packs.Head(key.lower(), key, _files(key.lower()), found)
                for key, found in labels.items()
            ),
        ),
    )
    return directory


def _files(folder: str) -> packs.ModelFiles:
    return packs.ModelFiles(f"{folder}/config.json", f"{folder}/model.safetensors")

"""Writes a trained demo model as a pack: official file layout, safetensors, manifest."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from inference import packs
from training.demo_pack.labels import Cut, pack_labels
from training.demo_pack.network import ENCODER, MODALITIES, DemoModel, head_config

NAME, VERSION = "demo-head", "1.0.0"
TITLE = "Demonstration model for head CT and brain MR, trained on synthetic images"
NOTICE = (
    "DEMONSTRATION ONLY. Trained and tested on synthetic images, never on patients. "
    "Not for clinical use."
)
CREATED = dt.date(2026, 11, 23)
"""Of the recipe; a fixed date keeps a rebuilt pack equal to this one."""


def write_pack(
    model: DemoModel,
    directory: Path,
    cuts: Mapping[str, Mapping[str, Cut]],
    extra_files: Iterable[str] = (),
) -> packs.Manifest:
    """Write encoder, heads and manifest below `directory`.

    `cuts` is by modality and label; `extra_files` lie in the directory already (the card).
    """
    _write_model(model.encoder, ENCODER, directory / "encoder")
    for modality in MODALITIES:
        folder = directory / modality.lower()
        _write_model(model.heads[modality], head_config(modality), folder)
    return write_manifest(directory, cuts, extra_files)


def write_manifest(
    directory: Path, cuts: Mapping[str, Mapping[str, Cut]], extra_files: Iterable[str] = ()
) -> packs.Manifest:
    """Write pack.toml for model files that lie in `directory` already."""
    heads = tuple(
        packs.Head(
            name=modality.lower(),
            modality=modality,
            files=_files(modality.lower()),
            labels=pack_labels(modality, cuts[modality]),
        )
        for modality in MODALITIES
    )
    manifest = packs.Manifest(
        name=NAME,
        version=VERSION,
        family="neurovfm",
        title=TITLE,
        licence="MIT",
        notice=NOTICE,
        encoder=_files("encoder"),
        heads=heads,
        created=CREATED,
        research_only=True,
        demonstration=True,
    )
    return packs.write_manifest(directory, manifest, extra_files)


def _files(folder: str) -> packs.ModelFiles:
    return packs.ModelFiles(f"{folder}/config.json", f"{folder}/model.safetensors")


def _write_model(module: nn.Module, config: Mapping[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    save_file(state, folder / "model.safetensors")

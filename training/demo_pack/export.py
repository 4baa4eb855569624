"""Writes a trained demo model as a pack: official file layout, safetensors, manifest."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from inference import packs
from training.demo_pack.labels import Cut, pack_labels
from training.demo_pack.network import ENCODER, MODALITIES, DemoModel, head_config
from training.demo_pack.selection import kept_rows

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

    `cuts` is by modality and label: a label without a cut is not shipped. `extra_files` lie in the
    directory already (the card).
    """
    _write_model(model.encoder.state_dict(), ENCODER, directory / "encoder")
    for modality in MODALITIES:
        shipped = [label.id for label in pack_labels(modality, cuts[modality])]
        state = kept_rows(model.heads[modality].state_dict(), shipped, modality)
        config = head_config(modality, len(shipped))
        _write_model(state, config, directory / modality.lower())
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


def _write_model(state: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    whole = {name: value.contiguous() for name, value in state.items()}
    save_file(whole, folder / "model.safetensors")

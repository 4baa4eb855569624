"""Turns downloaded official models into a pack: safetensors, labels, hashes, licence and notice."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from inference import packs
from inference.errors import ConfigError, PackError
from inference.findings import Acuity, Code
from inference.neurovfm import labels, weights
from inference.neurovfm.tokens import DEFAULT_STATS

Location = str | os.PathLike[str]

LICENCE = "CC-BY-NC-SA-4.0"
NOTICE = "Research use only. Not a medical device; not for clinical decisions."
CONFIG, WEIGHTS = "config.json", "model.safetensors"
THRESHOLD = 0.5
SCHEME = "99NEUROVFM"


@dataclass(frozen=True)
class Identity:
    """What the pack is called."""

    name: str
    version: str
    title: str = "NeuroVFM, official weights"
    created: dt.date | None = None


def import_official(
    encoder: Location,
    heads: Mapping[str, Location],
    target: Path,
    identity: Identity,
    revision: str | None = None,
) -> packs.Manifest:
    """Write a pack of an official encoder and its heads, each checked by loading it strictly.

    Args:
        encoder: official directory or Hugging Face id.
        heads: the same for each modality, "CT" and "MR".
        target: folder of the new pack; must not exist.
        identity: name, version and title.
        revision: of the Hugging Face repositories.

    Raises:
        PackError: `target` exists, or a file is missing, damaged or does not fit.
    """
    if target.exists():
        raise PackError(f"{target.name}: exists already; choose another folder or remove it")
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        manifest = _write(encoder, heads, unfinished, identity, revision)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


def _write(
    encoder: Location,
    heads: Mapping[str, Location],
    folder: Path,
    identity: Identity,
    revision: str | None,
) -> packs.Manifest:
    encoder_files = _write_encoder(weights.locate(encoder, revision), folder / "encoder")
    entries = tuple(
        _write_head(modality.upper(), weights.locate(location, revision), folder)
        for modality, location in heads.items()
    )
    if not entries:
        raise PackError("a pack needs at least one diagnostic head; name a CT or MR head")
    manifest = packs.Manifest(
        name=identity.name,
        version=identity.version,
        family="neurovfm",
        title=identity.title,
        licence=LICENCE,
        notice=NOTICE,
        encoder=encoder_files,
        heads=entries,
        created=identity.created or dt.datetime.now(dt.UTC).date(),
        research_only=True,
    )
    return packs.write_manifest(folder, manifest)


def _write_encoder(source: Path, folder: Path) -> packs.ModelFiles:
    loaded = weights.load_encoder_files(source / weights.CONFIG_FILE, weights.weights_file(source))
    state = weights.store_attention_in_half(loaded.model.state_dict())
    if loaded.stats != DEFAULT_STATS:
        means, stds = (torch.tensor(values) for values in loaded.stats)
        state |= {f"{weights.STATS_PREFIX}means": means, f"{weights.STATS_PREFIX}stds": stds}
    config = weights.read_json(source / weights.CONFIG_FILE)
    return _write_model(folder, config, state, loaded.provenance)


def _write_head(modality: str, source: Path, folder: Path) -> packs.Head:
    loaded = weights.load_head_files(source / weights.CONFIG_FILE, weights.weights_file(source))
    name = modality.lower()
    files = _write_model(folder / name, loaded.config, loaded.model.state_dict(), loaded.provenance)
    with torch.inference_mode():
        probe = loaded.model(torch.zeros(1, loaded.model.config.dim), torch.tensor([0, 1]))
    outputs = probe.logits.shape[1]
    if not outputs:
        raise ConfigError(f"{source.name}: pools tokens but has no classifier; it cannot diagnose")
    return packs.Head(name, modality, files, _labels(modality, outputs, loaded.config))


def _labels(modality: str, outputs: int, config: Mapping[str, Any]) -> tuple[packs.Label, ...]:
    """The published labels where their number fits, else the configuration's names or numbers."""
    published = labels.published(modality)
    if len(published) == outputs and "label_names" not in config:
        return tuple(
            packs.Label(p.id, p.display, p.acuity, THRESHOLD, p.code, localized=p.localized)
            for p in published
        )
    names = config.get("label_names") or labels.names_by_count(outputs)
    if len(names) != outputs:
        raise ConfigError(f"config.json: {len(names)} label_names for {outputs} outputs")
    return tuple(_unpublished(index, name) for index, name in enumerate(names))


def _unpublished(index: int, name: str) -> packs.Label:
    """A label nobody described: routine, coded by its place."""
    display = name.replace("_", " ").capitalize()[:64]
    code = Code(f"OUT{index:03d}", SCHEME, display)
    return packs.Label(name, display, Acuity.ROUTINE, THRESHOLD, code)


def _write_model(
    folder: Path,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    provenance: weights.Provenance,
) -> packs.ModelFiles:
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    tensors = {key: value.contiguous() for key, value in state.items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt", "made_from_sha256": provenance.sha256})
    return packs.ModelFiles(f"{folder.name}/{CONFIG}", f"{folder.name}/{WEIGHTS}")

"""Loads official NeuroVFM files: a directory with config.json and weights, or a Hugging Face id."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.checkpoints import (
    Layout,
    StateDict,
    load_strictly,
    read_state_dict,
    select,
    sha256_of,
)
from inference.errors import ConfigError, NotAvailableError, WeightsError
from inference.neurovfm.heads import (
    AggregateThenClassify,
    ClassifyThenAggregate,
    PooledClassifier,
    build_head,
)
from inference.neurovfm.model import VisionTransformer, build_encoder
from inference.neurovfm.tokens import DEFAULT_STATS, Stats

Head = ClassifyThenAggregate | AggregateThenClassify | PooledClassifier

CONFIG_FILE = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
STATS_PREFIX = "normalization_module."

ENCODER_LAYOUTS = (
    Layout(),
    Layout("encoder."),  # vision_encoder.pt of a VLM directory
    Layout(
        "model.student.vision_encoder.",
        beside=("model.student.", "model.teacher.", "model.predictor."),
    ),
    Layout("model.vision_encoder.encoder.", beside=("model.",)),
    Layout("model.vision_encoder.", beside=("model.",)),
)
HEAD_LAYOUTS = (Layout(), Layout("model.", beside=("model.", STATS_PREFIX)))

_HALF_KEYS = re.compile(r"blocks\.\d+\.mixer\.")
"""Attention weights are bfloat16 in the reference, whatever the file stores."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Provenance:
    """Where loaded weights came from, for the record.

    Attributes:
        source: directory name or Hugging Face id.
        revision: commit of the Hugging Face repository; empty for a directory.
        sha256: of the weights file.
        prefix: under which the module lay in the file.
        dropped: keys of other modules in the file that were not loaded.
    """

    source: str
    revision: str
    sha256: str
    prefix: str
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class LoadedEncoder:
    """An encoder in evaluation mode with its normalisation statistics."""

    model: VisionTransformer
    stats: Stats
    provenance: Provenance


@dataclass(frozen=True)
class LoadedHead:
    """A head in evaluation mode."""

    model: Head
    config: Mapping[str, Any]
    provenance: Provenance


def load_encoder_files(config: Path, weights: Path, source: str = "") -> LoadedEncoder:
    """Build the encoder of a config file and load a weights file into it.

    Raises:
        PackError: (ConfigError, WeightsError) a file is missing, damaged or does not fit.
    """
    model = build_encoder(read_json(config))
    state, stats = _take_stats(read_state_dict(weights))
    chosen = select(state, "blocks.0.norm1.weight", ENCODER_LAYOUTS, weights.name)
    load_strictly(model, round_attention(chosen.state), weights.name)
    provenance = Provenance(
        source or config.parent.name, "", sha256_of(weights), chosen.layout.prefix, chosen.dropped
    )
    return LoadedEncoder(model.eval().requires_grad_(False), stats, provenance)


def load_head_files(
    config: Path, weights: Path, source: str = "", dim: int | None = None
) -> LoadedHead:
    """Build the head of a config file and load a weights file into it.

    Args:
        config: the head's config.json.
        weights: the head's weights.
        source: name for the record.
        dim: embedding width; None reads it from the weights (the reference fixes it at 768).

    Raises:
        PackError: (ConfigError, WeightsError) a file is missing, damaged or does not fit.
    """
    settings = read_json(config)
    pooler = "pooler." if "pooler_cf" in settings else ""
    chosen = select(
        read_state_dict(weights), f"{pooler}attention_V.weight", HEAD_LAYOUTS, weights.name
    )
    width = dim or chosen.state[f"{pooler}attention_V.weight"].shape[-1]
    model = build_head({k: v for k, v in settings.items() if k != "label_names"}, width)
    own = chosen.state if not pooler else _only(chosen.state, ("pooler.", "proj."))
    load_strictly(model, own, weights.name)
    provenance = Provenance(
        source or config.parent.name, "", sha256_of(weights), chosen.layout.prefix, chosen.dropped
    )
    return LoadedHead(model.eval().requires_grad_(False), settings, provenance)


def locate(
    name_or_path: str | os.PathLike[str],
    revision: str | None = None,
    files: Sequence[str] = (CONFIG_FILE, *WEIGHT_FILES),
) -> Path:
    """The local directory of a model: as given, or these files of it fetched from the hub.

    The hub library's own settings hold: HF_HUB_OFFLINE, HF_HOME, HF_TOKEN.

    Raises:
        WeightsError: neither a directory nor a hub id, or the hub does not give it.
        NotAvailableError: a hub id, but the hub library is not installed.
    """
    directory = Path(name_or_path)
    if directory.is_dir():
        return directory
    name = os.fspath(name_or_path)
    if not _HUB_ID.fullmatch(name):
        raise WeightsError(f"{directory.name}: no such model directory, and no owner/name hub id")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise NotAvailableError(
            f"{name}: fetching from the Hugging Face hub needs its library: pip install "
            "'worklist-agent[hub]', or download the files and name their directory"
        ) from error
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors
        raise WeightsError(
            f"{name}: not fetched from the Hugging Face hub ({type(error).__name__}); check id, "
            "revision and network, or download the files and name their directory"
        ) from error


def name_origin(
    provenance: Provenance, name_or_path: str | os.PathLike[str], directory: Path
) -> Provenance:
    """Provenance with the hub id and the commit that was really fetched, or the folder's name."""
    if Path(name_or_path).is_dir():
        return replace(provenance, source=directory.name)
    # The hub's library keeps every snapshot in a folder named after its commit.
    return replace(provenance, source=os.fspath(name_or_path), revision=directory.name)


def weights_file(directory: Path) -> Path:
    """The weights file of an official directory, safetensors first.

    Raises:
        WeightsError: there is none.
    """
    for name in WEIGHT_FILES:
        if (directory / name).is_file():
            return directory / name
    raise WeightsError(f"{directory.name}: holds none of {', '.join(WEIGHT_FILES)}")


def round_attention(state: StateDict) -> StateDict:
    """Round attention weights to bfloat16, as they are meant, and hold everything in float32."""
    return {
        key: (value.to(torch.bfloat16) if _HALF_KEYS.match(key) else value).float()
        for key, value in state.items()
    }


def read_json(path: Path) -> dict[str, Any]:
    """Read a model's config.json.

    Raises:
        ConfigError: missing, not JSON or not an object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path.name}: missing or not JSON; fetch it again") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path.name}: holds no object with which and params")
    return found


def store_attention_in_half(state: Mapping[str, Tensor]) -> StateDict:
    """The inverse for files: attention weights as bfloat16, which they fit without loss."""
    return {
        key: value.to(torch.bfloat16) if _HALF_KEYS.match(key) else value
        for key, value in state.items()
    }


def _take_stats(state: StateDict) -> tuple[StateDict, Stats]:
    """Statistics that a checkpoint carries beside the encoder, else the published ones."""
    means, stds = (state.get(STATS_PREFIX + key) for key in ("means", "stds"))
    rest = {key: value for key, value in state.items() if not key.startswith(STATS_PREFIX)}
    if means is None or stds is None:
        return rest, DEFAULT_STATS
    return rest, (tuple(means.flatten().tolist()), tuple(stds.flatten().tolist()))


def _only(state: StateDict, prefixes: tuple[str, ...]) -> StateDict:
    return {key: value for key, value in state.items() if key.startswith(prefixes)}

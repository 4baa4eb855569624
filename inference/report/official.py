"""Reads the official directory of a findings model: encoder, connector and language model.

    config.json  vision_encoder.pt  vision_connector.pt  language_model/

All three parts must be there and whole. The reference goes on with random weights where a file is
missing or its keys lack their prefix; what it then writes reads like findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch

from inference.checkpoints import (
    Layout,
    StateDict,
    load_strictly,
    read_state_dict,
    select,
    sha256_of,
)
from inference.errors import ConfigError
from inference.neurovfm.model import build_encoder
from inference.neurovfm.tokens import DEFAULT_STATS, Stats
from inference.neurovfm.weights import CONFIG_FILE, LoadedEncoder, Provenance, read_json
from inference.report.connector import VisionConnector, load_connector, read_config

log = structlog.get_logger(__name__)

ENCODER, CONNECTOR, LANGUAGE_MODEL = "vision_encoder.pt", "vision_connector.pt", "language_model"
FILES = (CONFIG_FILE, ENCODER, CONNECTOR, f"{LANGUAGE_MODEL}/*")
"""What is fetched of a repository on the hub."""
KEYS = frozenset(
    {"vision_encoder_cf", "vision_connector_cf", "language_model_cf", "normalization_stats"}
)
PREFIX = "encoder."


@dataclass(frozen=True, eq=False)
class FindingsModel:
    """The parts of a findings model.

    Attributes:
        config: as read.
        encoder: in evaluation mode, with its statistics.
        connector: in evaluation mode.
        language_model: directory in Hugging Face's layout.
        connector_sha256: of the official connector file.
    """

    config: Mapping[str, Any]
    encoder: LoadedEncoder
    connector: VisionConnector
    language_model: Path
    connector_sha256: str


def read_findings_model(directory: Path) -> FindingsModel:
    """Load encoder and connector, every key of them, and find the language model.

    Raises:
        PackError: (ConfigError, WeightsError) a part is missing, damaged or does not fit.
    """
    config = read_json(directory / CONFIG_FILE)
    if unknown := sorted(set(config) - KEYS):
        # The reference reads four keys; a hub's tools may add others beside them.
        log.warning("findings_config_keys_ignored", reason=", ".join(unknown))
    parts = [_object(config, key) for key in ("vision_encoder_cf", "vision_connector_cf")]
    _object(config, "language_model_cf")
    language_model = directory / LANGUAGE_MODEL
    if not (language_model / CONFIG_FILE).is_file():
        raise ConfigError(
            f"{directory.name}: {LANGUAGE_MODEL}/{CONFIG_FILE} is missing; download the language "
            "model with the rest, nothing is fetched here"
        )
    encoder = _load_encoder(parts[0], read_stats(config), directory / ENCODER)
    width = read_json(language_model / CONFIG_FILE).get("hidden_size")
    if not isinstance(width, int):
        raise ConfigError(f"{LANGUAGE_MODEL}/{CONFIG_FILE}: names no hidden_size")
    sizes = read_config(parts[1], encoder.model.config.embed_dim, width)
    weights = directory / CONNECTOR
    connector = load_connector(sizes, weights)
    connector.load_state_dict(in_half(connector.state_dict()))
    return FindingsModel(config, encoder, connector, language_model, sha256_of(weights))


def read_system_prompt(directory: Path) -> str:
    """Text of the system turn, where the directory's configuration holds it; else empty.

    Raises:
        ConfigError: there is no such configuration.
    """
    settings = _object(read_json(directory / CONFIG_FILE), "language_model_cf")
    return str(settings.get("system_prompt") or "")


def in_half(state: Mapping[str, torch.Tensor]) -> StateDict:
    """Weights rounded to bfloat16 and held in float32, as the reference casts the whole model."""
    return {key: value.to(torch.bfloat16).float() for key, value in state.items()}


def read_stats(config: Mapping[str, Any]) -> Stats:
    """Normalization statistics of a configuration, else the published ones.

    Raises:
        ConfigError: they are not two lists of four numbers.
    """
    given = config.get("normalization_stats")
    if given is None:
        return DEFAULT_STATS
    rows = given if isinstance(given, list) and len(given) == 2 else []
    if not rows or not all(isinstance(row, list) and len(row) == 4 for row in rows):
        raise ConfigError("normalization_stats: expected four means and four deviations")
    means, stds = (tuple(float(value) for value in row) for row in rows)
    return means, stds


def _load_encoder(settings: Mapping[str, Any], stats: Stats, weights: Path) -> LoadedEncoder:
    model = build_encoder(settings)
    chosen = select(
        read_state_dict(weights), "blocks.0.norm1.weight", (Layout(PREFIX),), weights.name
    )
    load_strictly(model, in_half(chosen.state), weights.name)
    provenance = Provenance(
        weights.parent.name, "", sha256_of(weights), chosen.layout.prefix, chosen.dropped
    )
    return LoadedEncoder(model.eval().requires_grad_(False), stats, provenance)


def _object(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{CONFIG_FILE}: {key} is missing or no object; fetch it again")
    return value

"""Turns an official findings directory into a pack: safetensors, wording, hashes, licence."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
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
from inference.neurovfm.official import CONFIG, LICENCE, NOTICE, WEIGHTS, Identity
from inference.neurovfm.tokens import DEFAULT_STATS
from inference.neurovfm.weights import STATS_PREFIX
from inference.report.embeddings import EmbeddingRows
from inference.report.official import FindingsModel, read_findings_model
from inference.report.pack_section import ReportSection, Transport
from inference.report.prompt import PromptStyle
from inference.report.vocabulary import Vocabulary

LANGUAGE_MODEL, PROMPT = "language_model", "prompt.json"
KEPT = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "*.safetensors",
    "model.safetensors.index.json",
    "LICENSE*",
)
"""What a pack takes of a language model's directory: data, never code or pickles."""


@dataclass(frozen=True)
class Quirks:
    """How the language model was trained, which its files do not say.

    Attributes:
        empty_assistant_turn: as in the reference, whose prompts end with a closed turn.
        rounded_buffers: as in the reference, which casts the whole model to bfloat16.
        transport: towards a server; a closed assistant turn needs the whole prompt as embeddings.
    """

    empty_assistant_turn: bool = True
    rounded_buffers: bool = True
    transport: Transport = Transport.PROMPT_EMBEDS


def import_findings_model(
    source: Path,
    target: Path,
    identity: Identity,
    style: PromptStyle,
    quirks: Quirks = Quirks(),
) -> packs.Manifest:
    """Write a pack of an official findings directory, whose every weight is loaded strictly first.

    Args:
        source: with config.json, vision_encoder.pt, vision_connector.pt and language_model/.
        target: folder of the new pack; must not exist.
        identity: name, version and title.
        style: the wording that the language model was trained with.
        quirks: how it was trained.

    Raises:
        PackError: `target` exists, or a file is missing, damaged or does not fit.
    """
    if target.exists():
        raise PackError(f"{target.name}: exists already; choose another folder or remove it")
    model = read_findings_model(source)
    _check_language_model(model, style)
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        manifest = _write(model, unfinished, identity, style, quirks)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


def _write(
    model: FindingsModel, folder: Path, identity: Identity, style: PromptStyle, quirks: Quirks
) -> packs.Manifest:
    settings = model.config["vision_encoder_cf"]
    origin = model.encoder.provenance.sha256
    encoder = _write_model(folder / "encoder", settings, _encoder_state(model), origin)
    connector = _write_model(
        folder / "connector",
        model.config["vision_connector_cf"],
        model.connector.state_dict(),
        model.connector_sha256,
    )
    copied = _copy_language_model(model.language_model, folder / LANGUAGE_MODEL)
    wording = json.dumps(dataclasses.asdict(style), indent=1, ensure_ascii=False)
    (folder / PROMPT).write_text(wording, encoding="utf-8")
    manifest = packs.Manifest(
        name=identity.name,
        version=identity.version,
        family="neurovfm",
        title=identity.title,
        licence=LICENCE,
        notice=NOTICE,
        encoder=encoder,
        heads=(),
        created=identity.created or dt.datetime.now(dt.UTC).date(),
        report=ReportSection(
            connector=connector,
            language_model=LANGUAGE_MODEL,
            prompt=PROMPT,
            transport=quirks.transport,
            empty_assistant_turn=quirks.empty_assistant_turn,
            rounded_buffers=quirks.rounded_buffers,
        ),
    )
    return packs.write_manifest(folder, manifest, copied)


def _check_language_model(model: FindingsModel, style: PromptStyle) -> None:
    """Its table is as wide as the connector's tokens, and its tokenizer knows the image token."""
    width, wanted = EmbeddingRows.find(model.language_model).width, model.connector.config
    if width != wanted.language_dim:
        raise ConfigError(
            f"language_model: embeddings are {width} wide, its config says {wanted.language_dim}"
        )
    Vocabulary.load(model.language_model).id_of(style.image_token)


def _encoder_state(model: FindingsModel) -> dict[str, Tensor]:
    state: dict[str, Tensor] = dict(model.encoder.model.state_dict())
    if model.encoder.stats != DEFAULT_STATS:
        means, stds = (torch.tensor(values) for values in model.encoder.stats)
        state |= {f"{STATS_PREFIX}means": means, f"{STATS_PREFIX}stds": stds}
    return state


def _write_model(
    folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], origin: str
) -> packs.ModelFiles:
    """Weights are stored as bfloat16, to which they are rounded already; statistics are not."""
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    tensors = {
        key: value.contiguous() if key.startswith(STATS_PREFIX) else value.to(torch.bfloat16)
        for key, value in state.items()
    }
    save_file(tensors, folder / WEIGHTS, {"format": "pt", "made_from_sha256": origin})
    return packs.ModelFiles(f"{folder.name}/{CONFIG}", f"{folder.name}/{WEIGHTS}")


def _copy_language_model(source: Path, folder: Path) -> list[str]:
    folder.mkdir()
    names = sorted({file.name for kind in KEPT for file in source.glob(kind) if file.is_file()})
    for name in names:
        shutil.copyfile(source / name, folder / name)
    return [f"{folder.name}/{name}" for name in names]

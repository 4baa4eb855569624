"""Turns the published Prima files into a pack: safetensors, labels, hashes, licence and notice."""

from __future__ import annotations

import datetime as dt
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from inference import packs
from inference.checkpoints import StateDict, read_state_dict, sha256_of
from inference.errors import ConfigError, PackError
from inference.neurovfm.weights import read_json
from inference.packs import HeadKind
from inference.prima import labels, loading, official
from inference.prima.config import Components
from inference.prima.heads import priority_levels

LICENCE = "CC-BY-NC-SA-4.0"
NOTICE = "Research use only. Not a medical device; not for clinical decisions."
CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_THRESHOLD = 30.0
"""Beyond it, the threshold as a probability is 0 or 1 and could not be read back."""
CORRECTED = dt.date(2026, 2, 19)
"""When the authors replaced the priority head of the published file."""


@dataclass(frozen=True)
class Identity:
    """What the pack is called."""

    name: str
    version: str
    title: str = "Prima, official weights"
    licence: str = LICENCE
    created: dt.date | None = None


@dataclass(frozen=True)
class Sources:
    """The published files.

    Attributes:
        model: the full checkpoint, or its parts.
        tokenizer: the tokenizer's checkpoint.
        tokenizer_config: JSON with its `vqvae_config`.
        diagnosis_heads: heads JSON whose thresholds override those of the full checkpoint.
        referral_heads: likewise.
    """

    model: Path | Components
    tokenizer: Path
    tokenizer_config: Path
    diagnosis_heads: Path | None = None
    referral_heads: Path | None = None


def import_official(sources: Sources, target: Path, identity: Identity) -> packs.Manifest:
    """Write a pack, every part of which was loaded strictly first.

    Raises:
        PackError: `target` exists, or a file is missing, damaged, forged or does not fit.
    """
    if target.exists():
        raise PackError(f"{target.name}: exists already; choose another folder or remove it")
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        with ExitStack() as files:
            manifest = _write(sources, unfinished, identity, files)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


def doubts(sources: Sources) -> tuple[str, ...]:
    """What a person should know of these files before trusting their priorities.

    The checkpoint itself holds no date; a file that was last written before the correction is
    certainly old, a younger one may be an old one downloaded late.
    """
    path = sources.model if isinstance(sources.model, Path) else sources.model.priority
    written = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC).date()
    if written >= CORRECTED:
        return ()
    doubt = f"{path.name} was written on {written}, before the authors corrected the priority head"
    return (f"{doubt} on {CORRECTED}: its priorities may be wrong; download it again",)


def _write(sources: Sources, folder: Path, identity: Identity, files: ExitStack) -> packs.Manifest:
    model = official.open_official(sources.model, files)
    diagnoses = _overridden(model.diagnoses, sources.diagnosis_heads)
    referrals = _overridden(model.referrals, sources.referral_heads)
    heads = [
        _write_heads(HeadKind.DIAGNOSES, diagnoses, folder),
        _write_heads(HeadKind.REFERRAL, referrals, folder),
    ]
    if model.priority is not None:
        heads.append(_write_priority(model.priority, folder))
    # Built once to be sure: a tensor too many, too few or misshaped is named here.
    loading.build_visual(model.visual, model.counts, "visual model")
    manifest = packs.Manifest(
        name=identity.name,
        version=identity.version,
        family="prima",
        title=identity.title,
        licence=identity.licence,
        notice=NOTICE,
        origin=_origin(sources, model.left_out),
        tokenizer=_write_tokenizer(sources, folder),
        encoder=_write_model(folder / "encoder", asdict(model.counts), model.visual),
        heads=tuple(heads),
        created=identity.created or dt.datetime.now(dt.UTC).date(),
        research_only=True,
    )
    return packs.write_manifest(folder, manifest)


def _overridden(
    heads: tuple[official.OfficialHead, ...], file: Path | None
) -> tuple[official.OfficialHead, ...]:
    if file is None:
        return heads
    return official.with_thresholds(heads, _read_thresholds(file), file.name)


def _read_thresholds(file: Path) -> dict[str, tuple[int, float]]:
    """Output number and threshold of each head; the checkpoints it names need not exist."""
    found = {}
    for name, value in read_json(file).items():
        try:
            _, ((_, index, threshold), *_) = value
            found[name] = (int(index), float(threshold))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{file.name}: {name}: expected [labels file, [[checkpoint, output, threshold]]]"
            ) from error
    return found


def _write_tokenizer(sources: Sources, folder: Path) -> packs.ModelFiles:
    settings = read_json(sources.tokenizer_config)
    state = read_state_dict(sources.tokenizer)
    tokenizer = loading.tokenizer_from(settings, state, sources.tokenizer.name)
    inner: Mapping[str, Any] = settings.get("vqvae_config", settings.get("model", settings))
    kept = {key: value for key, value in inner.items() if key != "ckpt_path"}
    return _write_model(
        folder / "tokenizer", {"vqvae_config": kept}, dict(tokenizer.model.state_dict())
    )


def _write_heads(
    kind: HeadKind, heads: Sequence[official.OfficialHead], folder: Path
) -> packs.Head:
    thresholds = loading.thresholds(heads)
    config = {"networks": [head.name for head in heads]}
    files = _write_model(folder / str(kind), config, loading.stacked(heads, str(kind)))
    entries = tuple(_label(head, kind, thresholds[head.name]) for head in heads)
    return packs.Head(str(kind), "MR", files, entries, kind)


def _label(head: official.OfficialHead, kind: HeadKind, threshold: float) -> packs.Label:
    known = labels.describe(head.name, kind)
    if abs(threshold) > MAX_THRESHOLD:
        raise ConfigError(f"head {head.name}: threshold {threshold} is no logit a head gives")
    return packs.Label(
        id=known.id,
        display=known.display,
        acuity=known.acuity,
        threshold=1 / (1 + math.exp(-threshold)),
        code=known.code,
        localized=known.localized,
        index=head.index,
    )


def _write_priority(head: official.OfficialHead, folder: Path) -> packs.Head:
    levels = priority_levels(head.shapes[-1][0])
    files = _write_model(
        folder / "priority", {"networks": ["priority"]}, loading.stacked([head], "priority")
    )
    return packs.Head("priority", "MR", files, (), HeadKind.PRIORITY, levels)


def _write_model(folder: Path, config: Mapping[str, Any], state: StateDict) -> packs.ModelFiles:
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    tensors = {key: value.contiguous() for key, value in state.items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return packs.ModelFiles(f"{folder.name}/{CONFIG}", f"{folder.name}/{WEIGHTS}")


def _origin(sources: Sources, left_out: Sequence[str]) -> str:
    path = sources.model if isinstance(sources.model, Path) else sources.model.clip
    written = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC).date()
    without = (
        f"; left out, as inference does not need it: {', '.join(left_out)}" if left_out else ""
    )
    return f"Made from {path.name} of {written}, SHA-256 {sha256_of(path)}{without}."

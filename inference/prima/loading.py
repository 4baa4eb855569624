"""Loads Prima's models onto their device: from a pack, or straight from the published files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.checkpoints import StateDict, load_strictly, read_state_dict
from inference.errors import ConfigError, PackError, WeightsError
from inference.manifest import Head, HeadKind, Label, Manifest
from inference.neurovfm.weights import read_json
from inference.prima.config import Components
from inference.prima.heads import StackedHeads, priority_levels, stack
from inference.prima.hiervit import HierVit
from inference.prima.hiervit_sizes import HeadCounts, read_head_counts, read_sizes
from inference.prima.model import HeadReader, PrimaModel
from inference.prima.official import OfficialHead, open_official
from inference.prima.vqvae import VQVAE, Tokenizer
from inference.prima.vqvae_config import read_tokenizer_config


@dataclass(frozen=True, eq=False)
class LoadedPack:
    """A pack's models on their device."""

    manifest: Manifest
    tokenizer: Tokenizer
    model: PrimaModel

    def labels(self, kind: HeadKind) -> tuple[Label, ...]:
        """Labels of the heads of a kind, in the order of their outputs."""
        head = self.manifest.head_for("MR", kind)
        return head.labels if head else ()


@dataclass(frozen=True, eq=False)
class OfficialModels:
    """The published files' models on their device, with names and thresholds in logits."""

    tokenizer: Tokenizer
    model: PrimaModel
    diagnoses: Mapping[str, float]
    referrals: Mapping[str, float]
    levels: tuple[str, ...]


def load(directory: Path, manifest: Manifest, device: torch.device) -> LoadedPack:
    """Load every model of a pack and check that they fit each other and the manifest.

    Raises:
        PackError: a file does not fit its configuration, the others or the labels.
    """
    if manifest.tokenizer is None:
        raise PackError(f"{manifest.name}: a Prima pack needs a [tokenizer]; import it again")
    settings = read_json(directory / manifest.tokenizer.config)
    tokenizer = build_tokenizer(settings, directory / manifest.tokenizer.weights, device)
    files = manifest.encoder
    counts = read_head_counts(read_json(directory / files.config))
    visual = build_visual(read_state_dict(directory / files.weights), counts, manifest.name)
    readers = {h.kind: _read_head(directory, h) for h in manifest.heads}
    if HeadKind.DIAGNOSES not in readers:
        raise PackError(f"{manifest.name}: has no head of kind diagnoses")
    return LoadedPack(manifest, tokenizer, assemble(visual, readers, device))


def load_official(
    model: Path | Components,
    tokenizer: Mapping[str, Any],
    tokenizer_weights: Path,
    device: torch.device,
) -> OfficialModels:
    """Load the published files without a pack, as the published pipeline is configured.

    Args:
        model: the full checkpoint, or its parts.
        tokenizer: the `vqvae_config` object.
        tokenizer_weights: its checkpoint.
        device: for all of them.

    Raises:
        PackError: a file is damaged, forged or does not fit.
    """
    with ExitStack() as files:
        official = open_official(model, files)
        visual = build_visual(official.visual, official.counts, "visual model")
        if official.priority is None:
            raise WeightsError("the checkpoint has no priority head")
        readers = {
            HeadKind.DIAGNOSES: _reader(official.diagnoses, indices=True),
            HeadKind.REFERRAL: _reader(official.referrals, indices=True),
            HeadKind.PRIORITY: _reader([official.priority], indices=False),
        }
        return OfficialModels(
            tokenizer=build_tokenizer(tokenizer, tokenizer_weights, device),
            model=assemble(visual, readers, device),
            diagnoses=thresholds(official.diagnoses),
            referrals=thresholds(official.referrals),
            levels=priority_levels(official.priority.shapes[-1][0]),
        )


def build_tokenizer(settings: Mapping[str, Any], weights: Path, device: torch.device) -> Tokenizer:
    """The tokenizer of a `vqvae_config` with its weights, strictly loaded.

    Raises:
        PackError: a setting is wrong or the weights do not fit.
    """
    tokenizer = tokenizer_from(settings, read_state_dict(weights), weights.name)
    tokenizer.model.to(device)
    return tokenizer


def tokenizer_from(settings: Mapping[str, Any], state: StateDict, name: str) -> Tokenizer:
    """The same from tensors that are read already, on the CPU.

    Raises:
        PackError: a setting is wrong or the weights do not fit.
    """
    model = VQVAE(read_tokenizer_config(settings))
    load_strictly(model, state, name)
    return Tokenizer(model.requires_grad_(False))


def build_visual(state: StateDict, counts: HeadCounts, name: str) -> HierVit:
    """The study model that a checkpoint's tensors describe, strictly loaded, on the CPU.

    Raises:
        WeightsError: tensors are missing, too many, or contradict each other.
    """
    visual = HierVit(read_sizes(state, counts))
    load_strictly(visual, state, name)
    return visual.eval().requires_grad_(False)


def assemble(
    visual: HierVit, readers: Mapping[HeadKind, HeadReader], device: torch.device
) -> PrimaModel:
    """Parts on their device; heads in half precision on a GPU, as the reference runs them.

    Raises:
        WeightsError: a head reads embeddings of another width.
    """
    for kind, reader in readers.items():
        if reader.stack.width != visual.size.embedding:
            raise WeightsError(
                f"head {kind}: reads embeddings {reader.stack.width} wide, the model's are "
                f"{visual.size.embedding}; pack heads with the model they were trained on"
            )
        reader.stack.to(device)
        if device.type == "cuda":
            reader.stack.half()
    return PrimaModel(visual.to(device), readers)


def thresholds(heads: Sequence[OfficialHead]) -> dict[str, float]:
    """Thresholds in logits by name.

    Raises:
        WeightsError: a head has none.
    """
    without = [head.name for head in heads if head.threshold is None]
    if without:
        raise WeightsError(f"head {without[0]}: has no threshold; give its heads JSON")
    return {head.name: head.threshold for head in heads if head.threshold is not None}


def stacked(heads: Sequence[OfficialHead], name: str) -> StateDict:
    """The heads' tensors as one stack, read one head after the other."""
    return stack([head.shapes for head in heads], lambda row: heads[row].read(), name)


def logit(probability: float) -> float:
    """Inverse of the sigmoid."""
    return math.log(probability) - math.log1p(-probability)


def _reader(heads: Sequence[OfficialHead], *, indices: bool) -> HeadReader:
    found = tuple(head.index for head in heads) if indices else ()
    return HeadReader(StackedHeads(stacked(heads, heads[0].name), heads[0].name), found)


def _read_head(directory: Path, head: Head) -> HeadReader:
    state = read_state_dict(directory / head.files.weights)
    reader = HeadReader(StackedHeads(state, head.name), _indices(head))
    names = read_json(directory / head.files.config).get("networks")
    wanted = [label.id for label in head.labels] or ["priority"]
    if names != wanted or reader.stack.count != len(wanted):
        raise PackError(
            f"head {head.name}: config.json lists networks {str(names)[:80]}, the weights hold "
            f"{reader.stack.count}; both must be the manifest's labels in their order"
        )
    if head.levels and len(head.levels) != reader.stack.outputs:
        raise PackError(
            f"head {head.name}: {reader.stack.outputs} outputs, the manifest lists "
            f"{len(head.levels)} levels; what an output means is not guessed"
        )
    if max(reader.indices, default=0) >= reader.stack.outputs:
        raise PackError(f"head {head.name}: a label's index exceeds its network's outputs")
    return reader


def _indices(head: Head) -> tuple[int, ...]:
    for label in head.labels:
        if label.index is None:
            raise ConfigError(f"head {head.name}: {label.id}: index is missing; say which output")
        if not 0 < label.threshold < 1:
            raise ConfigError(f"head {head.name}: {label.id}: threshold must lie inside 0..1")
    return tuple(label.index for label in head.labels if label.index is not None)

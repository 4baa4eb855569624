"""Loads a NeuroVFM pack's models onto their device and checks that they fit its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from inference.errors import PackError
from inference.neurovfm import weights
from inference.packs import Head, Manifest
from inference.report.connector import VisionConnector, pack_connector


@dataclass(frozen=True, eq=False)
class LoadedPack:
    """A pack's models on their device; `heads` by the head's name."""

    manifest: Manifest
    encoder: weights.LoadedEncoder
    heads: Mapping[str, weights.LoadedHead]
    connector: VisionConnector | None = None
    """Of packs with a [report] section, in the precision of its device."""


def load(directory: Path, manifest: Manifest, device: torch.device) -> LoadedPack:
    """Load encoder and heads and check that they fit the manifest's labels.

    Raises:
        PackError: a file does not fit its configuration or the labels.
    """
    encoder = weights.load_encoder_files(
        directory / manifest.encoder.config, directory / manifest.encoder.weights, manifest.name
    )
    encoder.model.to(device)
    heads = {}
    for head in manifest.heads:
        loaded = weights.load_head_files(
            directory / head.files.config, directory / head.files.weights, head.name
        )
        loaded.model.to(device)
        _check_fit(encoder, loaded, head, device)
        heads[head.name] = loaded
    return LoadedPack(
        manifest, encoder, heads, _load_connector(directory, manifest, device, encoder)
    )


def _load_connector(
    directory: Path, manifest: Manifest, device: torch.device, encoder: weights.LoadedEncoder
) -> VisionConnector | None:
    if manifest.report is None:
        return None
    connector = pack_connector(directory, manifest.report, encoder.model.config.embed_dim)
    return connector.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)


def _check_fit(
    encoder: weights.LoadedEncoder, head: weights.LoadedHead, entry: Head, device: torch.device
) -> None:
    width, wanted = encoder.model.config.embed_dim, head.model.config.dim
    if width != wanted:
        raise PackError(
            f"head {entry.name}: reads embeddings {wanted} wide, the encoder's are {width}; "
            "pack the head with the encoder it was trained on"
        )
    with torch.inference_mode():
        probe = head.model(torch.zeros(1, width, device=device), torch.tensor([0, 1]))
    outputs = probe.logits.shape[1]
    if outputs != len(entry.labels):
        raise PackError(
            f"head {entry.name}: has {outputs} outputs, the manifest lists {len(entry.labels)} "
            "labels; list every output in its order"
        )

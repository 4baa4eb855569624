"""The official pipelines: an encoder that embeds a study and a head that reads it.

A user of the reference changes one import line. Differences are listed in docs/parity.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from inference.errors import InputError
from inference.neurovfm import batching, labels, weights
from inference.neurovfm.model import VisionTransformer
from inference.neurovfm.studies import StudyPreprocessor
from inference.neurovfm.tokens import CT_WINDOWS, DEFAULT_STATS, Stats, Window, read_mode

Prediction = tuple[str, float, int]
THRESHOLD = 0.5


def load_encoder(
    model_name_or_path: str | os.PathLike[str],
    device: str | torch.device | None = None,
    *,
    revision: str | None = None,
) -> tuple[EncoderPipeline, StudyPreprocessor]:
    """Load an encoder from an official directory or a Hugging Face id, with its preprocessor.

    Args:
        model_name_or_path: directory with config.json and weights, or owner/name on the hub.
        device: "cuda", "cpu", ...; None takes a GPU if there is one.
        revision: branch, tag or commit on the hub; pin it where results must not change.

    Raises:
        PackError: a file is missing, damaged or does not fit; the message names it.
    """
    directory = weights.locate(model_name_or_path, revision)
    loaded = weights.load_encoder_files(
        directory / weights.CONFIG_FILE, weights.weights_file(directory)
    )
    pipeline = EncoderPipeline(loaded.model, loaded.stats, device)
    pipeline.provenance = weights.name_origin(loaded.provenance, model_name_or_path, directory)
    return pipeline, StudyPreprocessor()


def load_diagnostic_head(
    model_name_or_path: str | os.PathLike[str],
    device: str | torch.device | None = None,
    *,
    revision: str | None = None,
    label_names: Sequence[str] | None = None,
) -> DiagnosticHead:
    """Load a diagnostic head from an official directory or a Hugging Face id.

    Args:
        model_name_or_path: directory with config.json and weights, or owner/name on the hub.
        device: "cuda", "cpu", ...; None takes a GPU if there is one.
        revision: branch, tag or commit on the hub.
        label_names: of the outputs, in order; None takes those of the config, else the published
            ones by their number (82 CT, 74 MRI), else numbers them.

    Raises:
        PackError: a file is missing, damaged or does not fit; the message names it.
    """
    directory = weights.locate(model_name_or_path, revision)
    loaded = weights.load_head_files(
        directory / weights.CONFIG_FILE, weights.weights_file(directory)
    )
    names = label_names or loaded.config.get("label_names")
    head = DiagnosticHead(loaded.model, names, device)
    head.provenance = weights.name_origin(loaded.provenance, model_name_or_path, directory)
    return head


class EncoderPipeline:
    """An encoder on its device."""

    provenance: weights.Provenance | None = None

    def __init__(
        self,
        model: VisionTransformer,
        normalization_stats: Stats | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.device = pick_device(device)
        self.model = model.to(self.device).eval()
        self.normalization_stats = normalization_stats or DEFAULT_STATS

    def embed(self, batch: Mapping[str, Any], use_amp: bool = True) -> Tensor:
        """Token embeddings [N, E] of a batch: bfloat16 with `use_amp`, else float32.

        The batch is left as it was; the reference normalises it in place.

        Raises:
            InputError: modes, paths, lengths and tokens of the batch contradict each other.
        """
        return batching.embed(
            self.model,
            read_batch(batch),
            device=self.device,
            stats=self.normalization_stats,
            use_amp=use_amp,
        )


class DiagnosticHead:
    """A head on its device, with the names of its outputs."""

    provenance: weights.Provenance | None = None

    def __init__(
        self,
        model: weights.Head,
        label_names: Sequence[str] | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.device = pick_device(device)
        self.model = model.to(self.device).eval()
        self.label_names = tuple(label_names) if label_names else None

    def predict(
        self, embeddings: Tensor, batch: Mapping[str, Any], use_amp: bool = True
    ) -> list[Prediction] | list[list[Prediction]]:
        """(label, probability, 0 or 1) of every label; a list of these for several studies.

        Raises:
            InputError: the head has no classifier, or the batch does not fit the embeddings.
        """
        rows = self.predict_proba(embeddings, batch, use_amp=use_amp).tolist()
        names = self._names(len(rows[0]))
        studies = [
            [(name, p, int(p > THRESHOLD)) for name, p in zip(names, row, strict=True)]
            for row in rows
        ]
        return studies[0] if len(studies) == 1 else studies

    @torch.inference_mode()
    def predict_proba(
        self, embeddings: Tensor, batch: Mapping[str, Any], use_amp: bool = True
    ) -> Tensor:
        """Probabilities [B, C], float32 on the CPU."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=use_amp):
            answer = self.model(embeddings.to(self.device), batch["study_cu_seqlens"])
        if not answer.logits.shape[1]:
            raise InputError(
                "this head pools tokens but has no classifier: use its model's pooled output"
            )
        probabilities: Tensor = answer.probabilities.cpu()
        return probabilities

    def _names(self, count: int) -> Sequence[str]:
        names = self.label_names or labels.names_by_count(count)
        if len(names) != count:
            raise InputError(f"{len(names)} label names were given for {count} outputs")
        return names


def read_batch(batch: Mapping[str, Any]) -> batching.Packed:
    """The tokens of an official batch, background left out where masks name the foreground.

    Raises:
        InputError: the batch contradicts itself.
    """
    tokens, coords = batch["img"], batch["coords"].long()
    if tokens.dtype == torch.uint8:
        tokens = tokens.float() / 255
    masks = batch.get("series_masks_indices")
    edges = batch["series_cu_seqlens"].tolist()
    if masks is not None and masks.numel():
        # The reference normalises the unfiltered tokens by the filtered series' bounds here.
        tokens, coords = tokens[masks.long()], coords[masks.long()]
    lengths = tuple(stop - start for start, stop in pairwise(edges))
    windows = tuple(map(window_of, batch["mode"], batch["path"]))
    if sum(lengths) != len(tokens) or len(windows) != len(lengths):
        raise InputError(
            f"the batch has {len(tokens)} tokens and {len(windows)} modes, its series bounds say "
            f"{sum(lengths)} tokens of {len(lengths)} series"
        )
    return batching.Packed(tokens, coords, lengths, windows)


def window_of(mode: str, path: str) -> Window:
    """How a series of an official batch was scaled, from its mode and its path's ending.

    Raises:
        InputError: a CT path that names no window.
    """
    if read_mode(mode) == "mri":
        return Window.MRI
    for window in CT_WINDOWS:
        if window in path:
            return window
    raise InputError(f"a CT series must name its window in its path: one of {list(CT_WINDOWS)}")


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, else a GPU if there is one."""
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)

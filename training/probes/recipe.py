"""From a cache, a table and an encoder to a pack the agent runs."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inference import packs
from inference.manifest import Head, Label, Manifest, ModelFiles
from inference.neurovfm import weights
from inference.neurovfm.model import VisionTransformer
from inference.neurovfm.tokens import DEFAULT_STATS, Stats
from training import runtime
from training.data.shards import Cache
from training.data.splits import Split
from training.data.table import StudyRow
from training.probes.features import StudyFeatures, embed_studies
from training.probes.fitting import Fitted, fit, fold_temperatures
from training.probes.train import ProbeConfig, label_matrix, train_probe
from training.probes.wording import worded

log = structlog.get_logger(__name__)

MODALITIES = ("CT", "MR")
NOTICE = "Research use only. Trained at this site, not validated for clinical use."


@dataclass(frozen=True)
class ProbeRun:
    """What to train and how the pack is named.

    Attributes:
        probe: hyperparameters.
        min_positives: a label with fewer positive training studies is left out.
        min_auroc: a label that validation does not tell this well is left out.
        false_alarm_cost: of the cut, against a miss.
    """

    name: str
    version: str
    title: str
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    licence: str = "unlicensed"
    notice: str = NOTICE
    demonstration: bool = False
    min_positives: int = 1
    min_auroc: float = 0.0
    false_alarm_cost: float = 1.0
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True)
class FittedHead:
    """A head of the pack and what validation said of all its candidate labels."""

    modality: str
    labels: tuple[str, ...]
    fitted: tuple[Fitted, ...]
    left_out: Mapping[str, str]


def train_pack(
    cache: Cache,
    rows: Sequence[StudyRow],
    division: Mapping[str, Split],
    encoder_folder: Path,
    run: ProbeRun,
    out: Path,
    site_labels: Mapping[str, Label] | None = None,
    work: Path | None = None,
) -> list[FittedHead]:
    """Train one head a modality on the frozen encoder and write a pack.

    Args:
        cache: tokens of the studies.
        rows: their labels.
        division: their sets.
        encoder_folder: official layout (``config.json``, ``pytorch_model.bin``).
        run: what to train.
        out: the pack's folder.
        site_labels: wording of labels that are not published ones.
        work: where features are kept; beside the pack when None.

    Raises:
        RunError: no modality has enough labels.
    """
    encoder = load_frozen(encoder_folder)
    made: list[tuple[FittedHead, Head]] = []
    with runtime.take_place(run.device, run.precision) as place:
        features = embed_studies(
            encoder.model,
            cache,
            _taking_part(cache, division),
            work or out.parent / "features",
            place,
            encoder.stats,
        )
        for modality in MODALITIES:
            mine = [one for one in features if one.modality == modality]
            found = _head(mine, rows, division, modality, run, out, site_labels, place)
            if found is not None:
                made.append(found)
    if not made:
        raise runtime.RunError("no label has enough positive training studies: nothing to train")
    _write_model(encoder.model, encoder.config, out / "encoder", _stored_stats(encoder.stats))
    manifest = Manifest(
        name=run.name,
        version=run.version,
        family="neurovfm",
        title=run.title,
        licence=run.licence,
        notice=run.notice,
        encoder=_files("encoder"),
        heads=tuple(head for _, head in made),
        created=dt.datetime.now(dt.UTC).date(),
        demonstration=run.demonstration,
    )
    packs.write_manifest(out, manifest)
    return [fitted for fitted, _ in made]


@dataclass(frozen=True, eq=False)
class Frozen:
    """An encoder as the agent will run it (its attention weights rounded as there)."""

    model: VisionTransformer
    config: dict[str, Any]
    stats: Stats


def load_frozen(folder: Path) -> Frozen:
    """The encoder of a folder in the official layout.

    Raises:
        PackError: a file is missing or does not fit its configuration.
    """
    loaded = weights.load_encoder_files(folder / weights.CONFIG_FILE, weights.weights_file(folder))
    model = loaded.model.requires_grad_(requires_grad=False).eval()
    return Frozen(model, dict(weights.read_json(folder / weights.CONFIG_FILE)), loaded.stats)


def _head(
    studies: Sequence[StudyFeatures],
    rows: Sequence[StudyRow],
    division: Mapping[str, Split],
    modality: str,
    run: ProbeRun,
    out: Path,
    site_labels: Mapping[str, Label] | None,
    place: runtime.Place,
) -> tuple[FittedHead, Head] | None:
    table = {row.study: row.labels for row in rows}
    training = [s for s in studies if division[s.study] is Split.TRAIN]
    validation = [s for s in studies if division[s.study] is Split.VALIDATION]
    candidates = sorted({label for s in training for label in table[s.study]})
    truth = label_matrix([s.study for s in training], candidates, table)
    left_out = {
        name: f"{count} positive training studies"
        for name, count in zip(candidates, (truth == 1).sum(axis=0), strict=True)
        if count < max(run.min_positives, 1)
    }
    labels = [name for name in candidates if name not in left_out]
    if not labels:
        log.info("modality_left_out", modality=modality, studies=len(training))
        return None
    checked = label_matrix([s.study for s in validation], labels, table)
    kept_truth = label_matrix([s.study for s in training], labels, table)
    probe = train_probe(training, kept_truth, validation, checked, run.probe, place)
    fitted = fit(probe.validation_logits, checked, run.false_alarm_cost) if validation else []
    if fitted:
        fold_temperatures(probe.head, [one.temperature for one in fitted])
    thresholds = {
        name: one.threshold
        for name, one in zip(
            labels, fitted or [Fitted(1.0, 0.5, None, 0, 0)] * len(labels), strict=True
        )
    }
    _write_model(probe.head, probe.config, out / modality.lower())
    worded_labels = worded(labels, modality, thresholds, site_labels)
    head = Head(modality.lower(), modality, _files(modality.lower()), worded_labels)
    return FittedHead(modality, tuple(labels), tuple(fitted), left_out), head


def _taking_part(cache: Cache, division: Mapping[str, Split]) -> list[Any]:
    wanted = (Split.TRAIN, Split.VALIDATION)
    return [s for s in cache.studies.values() if division.get(s.study) in wanted]


def _files(folder: str) -> ModelFiles:
    return ModelFiles(f"{folder}/config.json", f"{folder}/model.safetensors")


def _stored_stats(stats: Stats) -> dict[str, Tensor]:
    """Token statistics as official files hold them; none where they are the published ones."""
    if stats == DEFAULT_STATS:
        return {}
    means, stds = (torch.tensor(values) for values in stats)
    return {f"{weights.STATS_PREFIX}means": means, f"{weights.STATS_PREFIX}stds": stds}


def _write_model(
    model: nn.Module,
    config: Mapping[str, Any],
    folder: Path,
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file({**state, **(extra or {})}, folder / "model.safetensors")

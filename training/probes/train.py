"""Trains one head for one modality; the best epoch on validation is kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.neurovfm.heads import build_head
from training.evaluation import metrics
from training.probes.features import StudyFeatures
from training.runtime import Place, RunError
from training.voljepa.schedules import CosineWarmup

log = structlog.get_logger(__name__)

UNKNOWN = -1
Labels = npt.NDArray[np.int8]


@dataclass(frozen=True)
class ProbeConfig:
    """How a head is trained; the defaults are the published ones.

    Attributes:
        pooler: ``classify_then_aggregate`` or ``aggregate_then_classify``.
        hidden: width of attention and classifier.
        epochs: over the training studies.
        batch: studies a step.
        peak, start, final: learning rates.
        drop_rate: dropout of the head.
    """

    pooler: str = "classify_then_aggregate"
    hidden: int = 256
    epochs: int = 50
    batch: int = 8
    peak: float = 5e-4
    start: float = 1e-4
    final: float = 1e-6
    warm_up: float = 0.1
    weight_decay: float = 0.05
    drop_rate: float = 0.0
    clip: float = 1.0
    seed: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TrainedProbe:
    """A head and how it did on the validation studies.

    Attributes:
        config: official {"which", "params"} (or {"pooler_cf", "proj_params"}).
        head: the trained module.
        validation_logits: float64 [B, C], in the order of the validation studies.
        mean_auroc: over the labels that validation can tell.
    """

    config: dict[str, Any]
    head: nn.Module
    validation_logits: npt.NDArray[np.float64]
    mean_auroc: float


def head_config(config: ProbeConfig, outputs: int) -> dict[str, Any]:
    """Official layout of the head that `config` asks for.

    Raises:
        RunError: the pooler is unknown.
    """
    shared = {"hidden_dim": config.hidden, "drop_rate": config.drop_rate, **config.params}
    if config.pooler == "classify_then_aggregate":
        params = {"W_out": outputs, "mlp_hidden_dims": [config.hidden], **shared}
        return {"which": config.pooler, "params": params}
    if config.pooler == "aggregate_then_classify":
        pooler = {"which": config.pooler, "params": {"W_out": 1, **shared}}
        return {
            "pooler_cf": pooler,
            "proj_params": {"hidden_dims": [config.hidden], "out_dim": outputs},
        }
    raise RunError(
        f"pooler {config.pooler!r} is unknown; use classify_then_aggregate or "
        "aggregate_then_classify"
    )


def label_matrix(
    studies: Sequence[str], labels: Sequence[str], table: Mapping[str, Mapping[str, int]]
) -> Labels:
    """int8 [B, C]: 1, 0 or `UNKNOWN`, from study -> label -> value."""
    rows = [[table[study].get(label, UNKNOWN) for label in labels] for study in studies]
    return np.array(rows, dtype=np.int8).reshape(len(studies), len(labels))


def train_probe(
    training: Sequence[StudyFeatures],
    truth: Labels,
    validation: Sequence[StudyFeatures],
    validation_truth: Labels,
    config: ProbeConfig,
    place: Place,
) -> TrainedProbe:
    """Train a multilabel head; a label that is unknown for a study adds no loss there.

    Raises:
        RunError: there is nothing to train on.
    """
    if not training or not (truth == 1).any():
        raise RunError("no training study has a finding: nothing to learn from")
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    dim, outputs = training[0].features.shape[1], truth.shape[1]
    official = head_config(config, outputs)
    head = build_head(official, dim).to(place.device)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.peak, weight_decay=config.weight_decay
    )
    steps = max(1, -(-len(training) // config.batch)) * config.epochs
    rate = CosineWarmup(config.peak, config.start, config.final, steps, config.warm_up)
    weights = _positive_weights(truth, place)
    best, best_state, step = -1.0, copy.deepcopy(head.state_dict()), 0
    for epoch in range(config.epochs):
        head.train()
        for rows in _batches(len(training), config.batch, rng):
            for group in optimizer.param_groups:
                group["lr"] = rate.at(step)
            loss = _loss(head, [training[i] for i in rows], truth[rows], weights, place)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # as torch ships it
            nn.utils.clip_grad_norm_(head.parameters(), config.clip)
            optimizer.step()
            step += 1
        score = mean_auroc(predict(head, validation, place), validation_truth)
        if score > best:
            best, best_state = score, copy.deepcopy(head.state_dict())
        log.info("probe_epoch", epoch=epoch + 1, of=config.epochs, auroc=round(score, 4))
    head.load_state_dict(best_state)
    return TrainedProbe(official, head.eval(), predict(head, validation, place), best)


@torch.no_grad()
def predict(
    head: nn.Module, studies: Sequence[StudyFeatures], place: Place, batch: int = 16
) -> npt.NDArray[np.float64]:
    """Logits of each study: float64 [B, C]."""
    head.eval()
    parts = [
        _logits(head, studies[i : i + batch], place).double().cpu().numpy()
        for i in range(0, len(studies), batch)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, 0))


def mean_auroc(logits: npt.NDArray[np.float64], truth: Labels) -> float:
    """Over the labels with both classes among the known; 0 when there is none."""
    found = []
    for column in range(truth.shape[1]):
        known = truth[:, column] != UNKNOWN
        value = metrics.auroc(truth[known, column] == 1, logits[known, column])
        if value is not None:
            found.append(value)
    return float(np.mean(found)) if found else 0.0


def _loss(
    head: nn.Module,
    studies: Sequence[StudyFeatures],
    truth: Labels,
    weights: Tensor,
    place: Place,
) -> Tensor:
    logits = _logits(head, studies, place)
    wanted = torch.from_numpy(truth.astype(np.float32)).to(place.device)
    known = wanted >= 0
    each = functional.binary_cross_entropy_with_logits(
        logits, wanted.clamp_min(0), pos_weight=weights, reduction="none"
    )
    return (each * known).sum() / known.sum().clamp_min(1)


def _logits(head: nn.Module, studies: Sequence[StudyFeatures], place: Place) -> Tensor:
    features = np.concatenate([np.asarray(study.features) for study in studies])
    edges = torch.tensor([0, *(len(study.features) for study in studies)]).cumsum(0)
    out = head(torch.from_numpy(features).to(place.device).float(), edges)
    logits: Tensor = out.logits.float()
    return logits


def _positive_weights(truth: Labels, place: Place) -> Tensor:
    """Negatives per positive of each label, as published (pos_weight = w1 / w0)."""
    positives = (truth == 1).sum(axis=0)
    negatives = (truth == 0).sum(axis=0)
    weights = np.where(positives > 0, negatives / np.maximum(positives, 1), 1.0)
    return torch.from_numpy(np.clip(weights, 0.1, 100.0).astype(np.float32)).to(place.device)


def _batches(count: int, size: int, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    order = rng.permutation(count)
    return [order[i : i + size] for i in range(0, count, size)]

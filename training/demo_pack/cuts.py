"""Chooses, on the validation studies, where each label is cut: its probability and its saliency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from inference.explain.grounding import evidence
from training.demo_pack.batches import make_batch
from training.demo_pack.cache import CachedStudy
from training.demo_pack.labels import Cut
from training.demo_pack.metrics import operating_cut
from training.demo_pack.network import DemoModel
from training.demo_pack.train import run
from training.synthetic.labels import label_ids

SALIENCY_CUTS = tuple(round(0.05 * n, 2) for n in range(1, 13))
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Answer:
    """Probability of one label in one study, and how its tokens overlap the truth when cut."""

    true: bool
    probability: float
    overlaps: tuple[float, ...] | None


def choose_cuts(model: DemoModel, studies: Sequence[CachedStudy]) -> dict[str, Cut]:
    """Cuts of one modality's labels: few false alarms, and the best mean overlap of tokens."""
    answers: dict[str, list[_Answer]] = {label: [] for label in label_ids(studies[0].modality)}
    for study in studies:
        for label, answer in zip(answers, _answers(model, study), strict=True):
            answers[label].append(answer)
    return {label: _cut(some) for label, some in answers.items()}


def _cut(answers: Sequence[_Answer]) -> Cut:
    truth = np.array([a.true for a in answers])
    probability = operating_cut(truth, np.array([a.probability for a in answers]))
    overlaps = [a.overlaps for a in answers if a.overlaps is not None]
    if not overlaps:
        return Cut(probability)
    return Cut(probability, SALIENCY_CUTS[int(np.argmax(np.mean(overlaps, axis=0)))])


@torch.inference_mode()
def _answers(model: DemoModel, study: CachedStudy) -> list[_Answer]:
    output = run(model, make_batch([study]))
    patch = output.patch_logits
    if patch is None:
        raise ValueError("the head gives no evidence per token; use classify_then_aggregate")
    answers = []
    for column, probability in enumerate(output.probabilities[0].tolist()):
        true = bool(study.labels[column])
        shares: Vector = study.shares[:, column].astype(np.float32) / np.float32(255)
        overlaps = None
        if true and shares.any():
            weights = evidence(output.attention[:, column].numpy(), patch[:, column].numpy())
            overlaps = _overlaps(*_on_one_volume(study, weights, shares))
        answers.append(_Answer(true, probability, overlaps))
    return answers


def _on_one_volume(study: CachedStudy, weights: Vector, shares: Vector) -> tuple[Vector, Vector]:
    """The volume that holds most of the weight, the windows of a CT summed, as the agent does."""
    if study.modality == "CT":
        return weights.reshape(len(study.lengths), -1).sum(axis=0), shares[: study.lengths[0]]
    edges = study.lengths.cumsum()[:-1]
    parts = np.split(weights, edges)
    best = int(np.argmax([part.sum() for part in parts]))
    return parts[best], np.split(shares, edges)[best]


def _overlaps(weights: Vector, shares: Vector) -> tuple[float, ...]:
    """Dice of the tokens at or above each cut with the share of each token in the mask."""
    saliency = weights / max(float(weights.max()), 1e-12)
    total = float(shares.sum())
    kept = [saliency >= cut for cut in SALIENCY_CUTS]
    return tuple(2 * float(shares[k].sum()) / (float(k.sum()) + total) for k in kept)

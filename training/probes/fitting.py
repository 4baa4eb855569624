"""After training: temperatures folded into the head, cuts for its probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from inference.neurovfm.heads import ClassifyThenAggregate, PooledClassifier
from training.evaluation import calibration, metrics
from training.probes.train import UNKNOWN, Labels

Logits = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """What validation says of one label.

    Attributes:
        temperature: its logits were divided by it.
        threshold: on the calibrated probability.
        auroc: None when validation holds one class only.
    """

    temperature: float
    threshold: float
    auroc: float | None
    positives: int
    negatives: int


def fit(logits: Logits, truth: Labels, false_alarm_cost: float = 1.0) -> list[Fitted]:
    """Temperature and threshold of each column, from the validation studies that know it."""
    return [_fit(logits[:, c], truth[:, c], false_alarm_cost) for c in range(truth.shape[1])]


@torch.no_grad()
def fold_temperatures(head: nn.Module, temperatures: Sequence[float]) -> None:
    """Divide the head's logits by the temperatures, inside its own parameters.

    Raises:
        TypeError: the head has no place for it (a classifier of shared evidence without scale).
    """
    inverse = 1.0 / torch.tensor(temperatures, dtype=torch.float32)
    if isinstance(head, ClassifyThenAggregate) and head.config.output_scale:
        for parameter in (head.get_parameter("output_scale"), head.get_parameter("output_bias")):
            parameter.mul_(inverse.to(parameter.device))
        return
    if isinstance(head, PooledClassifier):
        last = f"proj.mlp.{len(head.proj.mlp) - 1}"
        weight, bias = head.get_parameter(f"{last}.weight"), head.get_parameter(f"{last}.bias")
        weight.mul_(inverse.to(weight.device).unsqueeze(1))
        bias.mul_(inverse.to(bias.device))
        return
    raise TypeError("the head has neither an output scale nor a classifier of its own")


def _fit(logits: Logits, truth: npt.NDArray[np.int8], cost: float) -> Fitted:
    known = truth != UNKNOWN
    present, given = truth[known] == 1, logits[known]
    heat = calibration.temperature(present, given)
    probability = 1.0 / (1.0 + np.exp(-given / heat))
    return Fitted(
        temperature=heat,
        threshold=metrics.best_threshold(present, probability, cost),
        auroc=metrics.auroc(present, probability),
        positives=int(present.sum()),
        negatives=int((~present).sum()),
    )

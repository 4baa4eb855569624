"""Prima's two objectives: studies against reports, and series against those of other studies.

Methods of arXiv 2509.18638, "Training"; values and gradients are those of the published code.
Legend: B pairs, S series of all studies of a batch, F width of a vector.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

DIAGONAL = -10.0
"""Stands for a series' likeness to itself, which says nothing."""
DISCRIMINATION_WEIGHT = 0.03
FIRST_TEMPERATURE = 0.07
"""Of the CLIP objective. It enters as exp(t): training begins at a scale of 1.07, not 1 / 0.07."""
FIRST_TAU = 0.1


def clip_objective(first: Tensor, second: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric cross-entropy of pairs of unit vectors [B, F]: unscaled, and scaled by exp(t).

    The second value is learned from; the first is comparable between steps.
    """
    scores = first @ second.T
    return _symmetric(scores), _symmetric(scores * temperature.exp())


def discrimination_objective(vectors: Tensor, studies: Tensor, tau: Tensor) -> Tensor:
    """How ill a series finds the others of its study: a sum over series, not a mean.

    Args:
        vectors: [S, F] of `HierVit.discriminate`.
        studies: int64 [S], equal for series of one study.
        tau: learned temperature, as it is.

    Returns:
        The loss; 0, with gradients of 0, where no study has two series. A series that is alone in
        its study has nothing to find and adds nothing (the published code gives infinity); to the
        others it is still one they must not choose.
    """
    same, count = _partners(studies)
    found = (_shares(vectors, tau) * same).sum(dim=1)
    paired = count > 0
    # The log of a masked place must be finite, or its gradient is not a number.
    each = found.where(paired, torch.ones_like(found)).log() / count.clamp_min(1)
    return -each.sum()


@torch.no_grad()
def discrimination_score(vectors: Tensor, studies: Tensor, tau: Tensor) -> Tensor:
    """Mean share of likeness that falls on the own study, in 0..1, weighted as the loss is."""
    same, count = _partners(studies)
    weight = torch.where(count > 0, 1 / count.clamp_min(1), 0)
    found = (_shares(vectors, tau) * same).sum(dim=1)
    return (found * weight).sum() / weight.sum().clamp_min(1e-12)


def total_objective(clip: Tensor, discrimination: Tensor) -> Tensor:
    """What the main training minimises."""
    return clip + DISCRIMINATION_WEIGHT * discrimination


def _symmetric(scores: Tensor) -> Tensor:
    places = torch.arange(len(scores), device=scores.device)
    rows = functional.cross_entropy(scores, places)
    columns = functional.cross_entropy(scores.T, places)
    return (rows + columns) / 2


def _partners(studies: Tensor) -> tuple[Tensor, Tensor]:
    """Which other series belong to the same study [S, S], and how many."""
    same = studies[:, None] == studies[None]
    same = same & ~torch.eye(len(studies), dtype=torch.bool, device=studies.device)
    return same, same.sum(dim=1)


def _shares(vectors: Tensor, tau: Tensor) -> Tensor:
    likeness = vectors @ vectors.T / tau
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    return likeness.masked_fill(itself, DIAGONAL).softmax(dim=1)

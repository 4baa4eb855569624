"""How a cached study is shown in training: parts left out, names unlearned, the filter varied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from inference.prima.model import EncodedSeries
from training.prima.cache import LatentSeries, LatentStudy

UNKNOWN_NAME = "unk"
USUAL_PERCENT = 5


@dataclass(frozen=True)
class Dropout:
    """Chances, as published.

    Attributes:
        series: of a series to be left out; one always stays.
        tokens: of a token to be left out.
        names: of a series' name, and of the study's description, to read "unk".
        percent: the filter's percentage moves by up to so much, either way.
    """

    series: float = 0.08
    tokens: float = 0.03
    names: float = 0.07
    percent: int = 2


NO_DROPOUT = Dropout(0.0, 0.0, 0.0, 0)


@dataclass(frozen=True, eq=False)
class ShownStudy:
    """A study as a step sees it."""

    study: str
    description: str
    series: tuple[EncodedSeries, ...]


def show(study: LatentStudy, how: Dropout, rng: np.random.Generator) -> ShownStudy:
    """One random view; without dropout, what inference reads."""
    kept = [one for one in study.series if rng.random() >= how.series]
    if not kept:
        kept = [study.series[int(rng.integers(len(study.series)))]]
    series = tuple(show_series(one, how, rng) for one in kept)
    return ShownStudy(study.study, _name(study.description, how, rng), series)


def show_series(one: LatentSeries, how: Dropout, rng: np.random.Generator) -> EncodedSeries:
    """One random view of a series; at least one token stays."""
    percent = USUAL_PERCENT + int(rng.integers(-how.percent, how.percent + 1))
    rows = one.chosen(percent)
    stays = rng.random(len(rows)) >= how.tokens
    stays[int(rng.integers(len(rows)))] = True
    picked = torch.from_numpy(rows[stays])
    return EncodedSeries(
        latents=one.latents[picked].float(),
        coords=one.coords()[picked],
        axis=one.axis,
        name=_name(one.name, how, rng),
    )


def _name(text: str, how: Dropout, rng: np.random.Generator) -> str:
    return UNKNOWN_NAME if rng.random() < how.names else text

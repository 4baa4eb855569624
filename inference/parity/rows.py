"""Comparisons with reference numbers, and the places where we differ on purpose."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]
Place = tuple[str, str]
"""Golden case and subject."""


@dataclass(frozen=True)
class Row:
    """One comparison with the reference.

    Attributes:
        case: golden case, e.g. ``n2_encoder``.
        subject: volume, study, variant or head.
        quantity: what was compared.
        values: how many numbers were compared.
        difference: largest absolute difference (bf16 rows: relative norm of the difference).
        tolerance: as the case states it.
        within: whether every value is inside the tolerance.
    """

    case: str
    subject: str
    quantity: str
    values: int
    difference: float
    tolerance: str
    within: bool


@dataclass(frozen=True)
class Difference:
    """One place where this implementation parts from the reference on purpose."""

    subject: str
    reference: str
    ours: str
    reason: str


@dataclass(frozen=True)
class Chapter:
    """Differences that belong together, under a title and a sentence of explanation."""

    title: str
    note: str
    differences: tuple[Difference, ...]


Measure = Callable[[Path, Mapping[str, Any]], Iterator[Row]]
"""(folder of a golden case, its meta.json) -> rows."""


def compare(
    place: Place, quantity: str, found: Array | torch.Tensor, wanted: Array, said: str
) -> Row:
    """Compare values with the reference's under a tolerance as the case words it."""
    if tuple(found.shape) != wanted.shape:
        return Row(*place, quantity, wanted.size, float("inf"), said, within=False)
    difference = np.abs(np.asarray(found, np.float64) - wanted.astype(np.float64))
    read = {k: float(v) for k, v in re.findall(r"(rtol|atol)\s+([0-9.e-]+)", said)}
    allowed = read.get("atol", 0.0) + read.get("rtol", 0.0) * np.abs(wanted.astype(np.float64))
    largest = float(difference.max(initial=0.0))
    within = bool((difference <= allowed).all())
    return Row(*place, quantity, wanted.size, largest, said, within)


def same(place: Place, quantity: str, equal: bool, values: int) -> Row:
    """A comparison that only knows equal or not: texts, and arrays by their hash."""
    return Row(*place, quantity, values, 0.0 if equal else float("inf"), "exact", equal)


def arrays(file: Path) -> dict[str, Array]:
    """All arrays of an npz file."""
    with np.load(file) as data:
        return {key: data[key] for key in data.files}

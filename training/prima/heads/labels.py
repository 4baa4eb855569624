"""Which columns of a table are diagnoses, referrals and priority levels, and their truth.

A column ``referral_<name>`` is a referral, ``priority_<level>`` a level of priority (exactly one of
a study's levels is 1), every other label a diagnosis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.manifest import HeadKind
from inference.prima.heads import PRIORITY_LEVELS
from inference.prima.labels import published
from training.data.table import StudyRow
from training.evaluation.predictions import PRIORITY_COLUMN, REFERRAL_COLUMN
from training.runtime import RunError

UNKNOWN = -1
REFERRAL, PRIORITY = REFERRAL_COLUMN, PRIORITY_COLUMN
Truth = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Columns:
    """Labels of each kind, without their prefix, in the order of the networks' outputs."""

    diagnoses: tuple[str, ...]
    referrals: tuple[str, ...]
    priority: tuple[str, ...]


def read_columns(rows: Sequence[StudyRow]) -> Columns:
    """The labels of a table; published ones in the published order, others after them.

    Raises:
        RunError: priority levels that no published head has.
    """
    found = {label for row in rows for label in row.labels}
    referrals = {c.removeprefix(REFERRAL) for c in found if c.startswith(REFERRAL)}
    levels = {c.removeprefix(PRIORITY) for c in found if c.startswith(PRIORITY)}
    diagnoses = {c for c in found if not c.startswith((REFERRAL, PRIORITY))}
    chosen = next((names for names in PRIORITY_LEVELS.values() if set(names) == levels), ())
    if levels and not chosen:
        known = " or ".join(", ".join(names) for names in PRIORITY_LEVELS.values())
        raise RunError(f"priority levels {sorted(levels)} are not {known}; rename the columns")
    return Columns(
        _ordered(diagnoses, HeadKind.DIAGNOSES), _ordered(referrals, HeadKind.REFERRAL), chosen
    )


def truth_of(rows: Sequence[StudyRow], labels: Sequence[str], prefix: str = "") -> Truth:
    """int8 [B, L]: 1, 0 or `UNKNOWN`."""
    values = [[row.labels.get(f"{prefix}{label}", UNKNOWN) for label in labels] for row in rows]
    return np.array(values, dtype=np.int8).reshape(len(rows), len(labels))


def level_of(truth: Truth) -> Truth:
    """int8 [B]: number of the one level that is 1; `UNKNOWN` where none or several are."""
    one = (truth == 1).sum(axis=1) == 1
    levels: Truth = np.where(one, (truth == 1).argmax(axis=1), UNKNOWN).astype(np.int8)
    return levels


def _ordered(names: set[str], kind: HeadKind) -> tuple[str, ...]:
    known = [label.id for label in published(kind) if label.id in names]
    return (*known, *sorted(names - set(known)))

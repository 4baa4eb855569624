"""Which synthetic studies the recipe makes: seeds, splits and how often each pathology occurs."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from training.synthetic.labels import Pathology
from training.synthetic.study import SyntheticStudy, make_study


class Split(enum.StrEnum):
    """What a study is for; splits never share a seed, hence no anatomy."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True)
class Case:
    """One study of the recipe, before it is made."""

    modality: str
    split: Split
    number: int
    seed: int
    pathologies: frozenset[Pathology]
    matrix: int

    @property
    def key(self) -> str:
        """Name of the case in the cache."""
        return f"{self.modality.lower()}-{self.split}-{self.number:04d}"

    def make(self) -> SyntheticStudy:
        """Generate the study."""
        return make_study(self.seed, self.modality, self.pathologies, matrix=self.matrix)


def draw_cases(seed: int, modality: str, split: Split, count: int) -> tuple[Case, ...]:
    """The first `count` cases of a split; a larger count extends a smaller one."""
    return tuple(_draw_case(seed, modality, split, number) for number in range(count))


# Chance of each pathology as the leading one of a study; the rest of the studies are normal.
_LEADING: dict[Pathology, float] = {
    Pathology.INTRAPARENCHYMAL: 0.13,
    Pathology.SUBDURAL: 0.13,
    Pathology.EPIDURAL: 0.10,
    Pathology.SUBARACHNOID: 0.11,
    Pathology.INFARCT: 0.13,
    Pathology.MASS: 0.13,
    Pathology.VENTRICULOMEGALY: 0.07,
    Pathology.ATROPHY: 0.06,
}
_SPACE_OCCUPYING = frozenset(
    {Pathology.INTRAPARENCHYMAL, Pathology.SUBDURAL, Pathology.EPIDURAL, Pathology.MASS}
)
_LARGE_SHARE = 0.1
"""Share of CT studies with a 512 matrix; the others are made with 256, which costs a third."""


def _draw_case(seed: int, modality: str, split: Split, number: int) -> Case:
    rng = np.random.default_rng([seed, number, *f"{modality} {split}".encode()])
    study_seed = int(rng.integers(2**62))
    pathologies = _draw_pathologies(rng)
    large = modality == "CT" and rng.random() < _LARGE_SHARE
    return Case(modality, split, number, study_seed, pathologies, 512 if large else 256)


def _draw_pathologies(rng: np.random.Generator) -> frozenset[Pathology]:
    kinds, chances = list(_LEADING), list(_LEADING.values())
    leading = int(rng.choice(len(kinds) + 1, p=[*chances, 1 - sum(chances)]))
    if leading == len(kinds):
        return frozenset()
    present = {kinds[leading]}
    if present & _SPACE_OCCUPYING and rng.random() < 0.45:
        present.add(Pathology.MIDLINE_SHIFT)
    if rng.random() < 0.25:
        present.add(Pathology(rng.choice([*_LEADING])))
    if rng.random() < 0.10:
        present.add(Pathology(rng.choice([Pathology.VENTRICULOMEGALY, Pathology.ATROPHY])))
    return frozenset(present)

"""The whole recipe: studies, cache, training, cuts, evaluation, pack and card."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from inference import packs
from training.demo_pack import export, metrics
from training.demo_pack.cache import CachedStudy, build_cache, load_cache
from training.demo_pack.card import CARD_FILES, Recipe, write_card
from training.demo_pack.cases import Case, Split, draw_cases
from training.demo_pack.cuts import choose_cuts
from training.demo_pack.labels import Cut
from training.demo_pack.metrics import LabelReport
from training.demo_pack.network import MODALITIES, DemoModel
from training.demo_pack.observe import Observation, observe
from training.demo_pack.selection import Validated, validate
from training.demo_pack.train import Schedule, train
from training.synthetic.labels import label_ids

log = structlog.get_logger(__name__)

Cuts = dict[str, dict[str, Cut]]


@dataclass(frozen=True)
class Plan:
    """Size of a run.

    Attributes:
        counts: studies by split and modality.
        stages: of the training; each restarts the optimizer.
        matrix: rows and columns of every study; as drawn (256, some 512) when None.
    """

    counts: Mapping[Split, Mapping[str, int]]
    stages: tuple[Schedule, ...]
    matrix: int | None = None

    def cases(self, seed: int, split: Split) -> list[Case]:
        """All cases of a split, the modalities mixed so that a stopped run has both."""
        drawn = [
            ((number + 0.5) / count, case)
            for modality, count in self.counts[split].items()
            for number, case in enumerate(draw_cases(seed, modality, split, count))
        ]
        mixed = [case for _, case in sorted(drawn, key=lambda pair: pair[0])]
        if self.matrix is None:
            return mixed
        return [dataclasses.replace(case, matrix=self.matrix) for case in mixed]


FULL = Plan(
    counts={
        Split.TRAIN: {"CT": 380, "MR": 300},
        Split.VALIDATION: {"CT": 50, "MR": 40},
        Split.TEST: {"CT": 60, "MR": 45},
    },
    stages=(
        Schedule(steps=2400),
        Schedule(steps=1300, studies={"CT": 3, "MR": 7}, learning_rate=2e-3, dropout=False),
    ),
)
QUICK = Plan(
    counts={split: {"CT": 2, "MR": 1} for split in Split},
    stages=(Schedule(steps=2, studies={"CT": 1, "MR": 1}, warm_up=1),) * 2,
    matrix=64,
)
"""Seconds instead of half an hour: shows that the recipe runs, the pack it makes knows nothing."""


def build(
    out: Path, seed: int, plan: Plan, work_dir: Path, workers: int = 2, command: str = ""
) -> dict[str, Any]:
    """Make the pack in `out` and return its card.

    What is slow to make (tokens, observations) is kept in `work_dir` and used again by a later
    run with the same seed; delete it after a change of the generator or the preprocessing.
    """
    clock = _Clock()
    known = {split: plan.cases(seed, split) for split in Split}
    tokens = work_dir / "tokens"
    build_cache([*known[Split.TRAIN], *known[Split.VALIDATION]], tokens, workers)
    clock.lap("tokens")
    model = train(load_cache(known[Split.TRAIN], tokens), plan.stages, seed)
    clock.lap("training")
    validation = load_cache(known[Split.VALIDATION], tokens)
    cuts, validated = _select(model, validation)
    export.write_pack(model, out, cuts)
    # Answers of an earlier model say nothing about this one.
    answers = work_dir / f"answers-{packs.load_manifest(out).digest[:16]}"
    seen = observe(out, known[Split.TEST], workers, answers)
    card = write_card(out, _recipe(model, seed, plan, command), _reports(seen, cuts), validated)
    export.write_pack(model, out, cuts, CARD_FILES)
    packs.verify(out)
    clock.lap("evaluation")
    return card


def _reports(observations: Sequence[Observation], cuts: Cuts) -> dict[str, list[LabelReport]]:
    return {
        modality: [
            metrics.report(_of(observations, modality), label, cuts[modality])
            for label in label_ids(modality)
            if label in cuts[modality]
        ]
        for modality in MODALITIES
    }


def _select(
    model: DemoModel, studies: Sequence[CachedStudy]
) -> tuple[Cuts, dict[str, tuple[Validated, ...]]]:
    """Cuts of the labels that ship, and how every label did on the validation studies."""
    cuts: Cuts = {}
    validated = {}
    for modality in MODALITIES:
        some = [s for s in studies if s.modality == modality]
        validated[modality] = validate(model, some)
        shipped = {one.label for one in validated[modality] if one.shipped}
        chosen = choose_cuts(model, some)
        # A quick run knows nothing: it ships everything, to show that the recipe runs.
        cuts[modality] = {k: v for k, v in chosen.items() if k in shipped} or chosen
    return cuts, validated


def _of(observations: Sequence[Observation], modality: str) -> list[Observation]:
    return [one for one in observations if one.modality == modality]


def _recipe(model: DemoModel, seed: int, plan: Plan, command: str) -> Recipe:
    return Recipe(
        command=command,
        seed=seed,
        steps=sum(stage.steps for stage in plan.stages),
        parameters=sum(p.numel() for p in model.parameters()),
        studies={
            modality: {str(split): plan.counts[split][modality] for split in Split}
            for modality in MODALITIES
        },
    )


class _Clock:
    """Logs how long each part of the recipe took."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def lap(self, part: str) -> None:
        now = time.monotonic()
        log.info("recipe_part_done", part=part, seconds=round(now - self._since, 1))
        self._since = now

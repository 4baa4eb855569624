"""The main training: studies and reports that belong together get vectors that agree.

One optimizer step joins several micro-batches in one loss. Rates: a linear warm-up to a constant.
The published code counts micro-batches where it means steps: its factor ends at 2, not 1
(`reference_warm_up`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from inference.checkpoints import load_strictly, read_state_dict
from inference.errors import WeightsError
from inference.neurovfm.weights import read_json
from inference.prima.hiervit import HierVit
from inference.prima.texts import PretrainedTextEncoder
from training import loop, runtime
from training.data.table import StudyRow
from training.prima import cache, published, series_names
from training.prima.clip.network import ClipLoss, JointBatch, Pairs
from training.prima.sampling import Dropout, show
from training.prima.series_names import recipe as names_recipe
from training.prima.sizes import StudySize
from training.prima.text_tower import ReportReader, TextConfig, build_tower
from training.runtime import Place, RunError

ENCODER, TEXT, OFFICIAL = "encoder", "text_tower.pt", "clip.pt"


@dataclass(frozen=True)
class ClipRun:
    """A run; the defaults are the published ones where they are known.

    Attributes:
        size: of the study model.
        text: the text tower.
        batch: studies in a micro-batch.
        joined: micro-batches in one loss, and one optimizer step.
        warm_up: steps until the full rate.
        reference_warm_up: count micro-batches up to twice `warm_up`, as the published code does.
        summaries: learn from the table's column `summary` where it is filled.
    """

    size: StudySize = field(default_factory=StudySize)
    text: TextConfig = field(default_factory=TextConfig)
    batch: int = 8
    joined: int = 2
    steps: int = 50_000
    rate: float = 2e-6
    weight_decay: float = 1e-4
    warm_up: int = 200
    reference_warm_up: bool = False
    dropout: Dropout = field(default_factory=Dropout)
    summaries: bool = True
    seed: int = 0
    save_every: int = 500
    device: str = "auto"
    precision: str = "auto"

    def rate_at(self, step: int) -> float:
        """Of an optimizer step, counted from 0."""
        if not self.reference_warm_up:
            return self.rate * min(step + 1, self.warm_up) / max(1, self.warm_up)
        seen = step * self.joined
        return self.rate * min(seen, 2 * self.warm_up) / max(1, self.warm_up)


def train(
    folder: Path,
    rows: Sequence[StudyRow],
    config: ClipRun,
    out: Path,
    names: Path | None = None,
) -> list[float]:
    """Train on a latent cache and the table's reports.

    Writes the study model as ``encoder/`` (a pack's layout) and ``clip.pt`` (the published one),
    and the text tower as ``text_tower.pt``.

    Args:
        folder: of the latent cache.
        rows: the training studies; those without a report are left out.
        config: of the run.
        out: its folder.
        names: folder of the series-name run whose encoder to begin with.

    Returns:
        The loss of every step of this call.

    Raises:
        RunError: no study with a report, no such device, a damaged checkpoint.
        DataError: the cache holds none of the studies.
    """
    reports = {row.study: text for row in rows if (text := report_of(row, config))}
    if len(reports) < 2:
        raise RunError("fewer than two training studies have a report: fill the column 'report'")
    files = cache.present(folder, list(reports))
    with runtime.take_place(config.device, config.precision) as place:
        torch.manual_seed(config.seed)
        reader = ReportReader(config.text)
        visual = build_visual(config, names)
        tower = build_tower(config.text, reader.size, config.size.features)
        module = ClipLoss(visual, tower, place).to(place.device).train()
        optimizer = torch.optim.Adam(
            module.parameters(), lr=config.rate, weight_decay=config.weight_decay
        )
        draw = _Batches(files, reports, reader, config, place)
        steps = loop.Steps(
            total=config.steps,
            rate=config.rate_at,
            seed=config.seed,
            zero_nan=True,
            save_every=config.save_every,
        )
        losses = loop.run(loop.Trained(module, optimizer), draw.of, steps, out, place)
        if place.first:
            export(module, config, out)
    return losses


def report_of(row: StudyRow, config: ClipRun) -> str:
    """The text a study is compared with; empty = none."""
    return (row.summary if config.summaries and row.summary else row.report).strip()


def build_visual(config: ClipRun, names: Path | None) -> HierVit:
    """The study model, its series-name encoder taken from a run before where one is given.

    Raises:
        RunError: that run's encoder is of another size.
    """
    if names is None:
        return HierVit(config.size.sized(name_outputs=None))
    about = read_json(names / names_recipe.CONFIG)
    visual = HierVit(config.size.sized(name_outputs=int(about["features"])))
    encoder = visual.serieencoder
    if not isinstance(encoder, PretrainedTextEncoder):
        raise RunError(f"{names}: {series_names.__name__} gives no encoder of this layout")
    try:
        load_strictly(encoder[0], read_state_dict(names / names_recipe.WEIGHTS), names.name)
    except WeightsError as error:
        raise RunError(f"{names}: its name encoder is of another size than size.names") from error
    encoder[0].linear.requires_grad_(False)  # bypassed: it would never get a gradient
    return visual


def export(module: ClipLoss, config: ClipRun, out: Path) -> None:
    """Study model in both layouts, and the text tower."""
    state = {k: v.detach().cpu().contiguous() for k, v in module.visual_model.state_dict().items()}
    folder = out / ENCODER
    folder.mkdir(parents=True, exist_ok=True)
    counts = config.size.counts()
    (folder / "config.json").write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    temperatures = {
        name: getattr(module, name).detach().cpu() for name in ("temperature", "patdistemperature")
    }
    published.save_clip(module.visual_model, temperatures, out / OFFICIAL)
    tower = {k: v.detach().cpu() for k, v in module.text_model.state_dict().items()}
    torch.save(tower, out / TEXT)


class _Batches:
    """Which studies a step joins; every process draws its own."""

    def __init__(
        self,
        files: Mapping[str, Path],
        reports: Mapping[str, str],
        reader: ReportReader,
        config: ClipRun,
        place: Place,
    ) -> None:
        self._studies = list(files)
        self._files, self._config = files, config
        self._texts = {study: tuple(reader.ids(reports[study])) for study in files}
        size = config.batch * config.joined
        self._picks = loop.epochs(len(files), size, config.seed, place)

    def of(self, step: int, rng: np.random.Generator) -> JointBatch:
        """The joined micro-batches of a step."""
        numbers = self._picks(step)
        size = max(1, -(-len(numbers) // self._config.joined))
        parts = [numbers[i : i + size] for i in range(0, len(numbers), size)]
        return JointBatch(tuple(self._pairs(part, rng) for part in parts))

    def _pairs(self, numbers: Sequence[int], rng: np.random.Generator) -> Pairs:
        names = [self._studies[number] for number in numbers]
        held = [cache.read_latents(self._files[name]) for name in names]
        return Pairs(
            studies=tuple(show(study, self._config.dropout, rng) for study in held),
            texts=tuple(self._texts[name] for name in names),
            numbers=tuple(numbers),
        )

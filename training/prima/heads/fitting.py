"""Trains one network of heads on frozen embeddings, and keeps each output's best epoch.

Legend: B studies, E width of an embedding, C outputs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from training import loop
from training.evaluation import metrics
from training.prima.heads.labels import UNKNOWN, Truth
from training.runtime import Place, RunError

Embeddings = npt.NDArray[np.float32]
LOWEST, HIGHEST, STRIDE = -5.0, 2.0, 0.2


@dataclass(frozen=True)
class HeadConfig:
    """Training of one network; the defaults are the published ones.

    Attributes:
        hidden: widths between embedding and outputs.
        noise: share of a normal deviate by which each value of an embedding is scaled.
    """

    hidden: tuple[int, int] = (4000, 1000)
    rate: float = 1e-5
    batch: int = 200
    epochs: int = 50
    noise: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class KeptHead:
    """One output at its best epoch.

    Attributes:
        name: of the label.
        file: bare state_dict of the whole network at that epoch.
        index: the output that answers.
        threshold: in logits; the most accurate on the validation studies.
        auroc: on the validation studies.
    """

    name: str
    file: Path
    index: int
    threshold: float
    auroc: float


class HeadLoss(nn.Module):
    """Linear-ReLU-Linear-ReLU-Linear, and its loss on noisy embeddings.

    Attributes:
        exclusive: the outputs are levels of which one is right; otherwise each is a question of
            its own.
    """

    def __init__(
        self, width: int, outputs: int, config: HeadConfig, weights: Tensor, *, exclusive: bool
    ) -> None:
        super().__init__()
        first, second = config.hidden
        self.network = nn.Sequential(
            nn.Linear(width, first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, outputs),
        )
        self.exclusive, self._noise, self._weights = exclusive, config.noise, weights

    def forward(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Embeddings [B, E] and truth [B, C] (or levels [B]) to the loss; unknown adds nothing."""
        embeddings, truth = batch
        noisy = embeddings * (1 + self._noise * torch.randn_like(embeddings))
        logits = self.network(noisy).float()
        known = truth != UNKNOWN
        if self.exclusive:
            each = functional.cross_entropy(
                logits, truth.long().clamp_min(0), weight=self._weights, reduction="none"
            )
        else:
            each = functional.binary_cross_entropy_with_logits(
                logits, truth.float().clamp_min(0), pos_weight=self._weights, reduction="none"
            )
        return (each * known).sum() / known.sum().clamp_min(1), {}


def fit(
    labels: tuple[str, ...],
    training: tuple[Embeddings, Truth],
    validation: tuple[Embeddings, Truth],
    config: HeadConfig,
    out: Path,
    place: Place,
    *,
    exclusive: bool = False,
) -> list[KeptHead]:
    """Train and keep each label's best epoch; levels that exclude each other share one.

    Args:
        labels: names of the outputs.
        training: embeddings [B, E] and truth [B, C]; with `exclusive`, levels [B].
        validation: the same of the studies that choose the epoch.
        config: of the training.
        out: folder of this network.
        place: this process.
        exclusive: the outputs are levels of which one is right.

    Returns:
        One entry a label (with `exclusive` one in all), those left out whose best epoch cannot be
        told: validation has only one of their classes.
    """
    embeddings, truth = training
    if not len(embeddings) or not (truth != UNKNOWN).any():
        raise RunError(f"no training study has a label for the heads in {out.name}")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    weights = _weights(truth, len(labels), exclusive=exclusive).to(place.device)
    module = HeadLoss(embeddings.shape[1], len(labels), config, weights, exclusive=exclusive)
    module.to(place.device).train()
    optimizer = torch.optim.RMSprop(module.parameters(), lr=config.rate)
    picks = loop.epochs(len(embeddings), config.batch, config.seed, place)
    per_epoch = max(1, len(embeddings) // (config.batch * place.world))
    best = _Best(labels, module, validation, out, place)

    def batch(step: int, _: np.random.Generator) -> tuple[Tensor, Tensor]:
        rows = picks(step)
        return (
            torch.from_numpy(embeddings[rows]).to(place.device),
            torch.from_numpy(truth[rows]).to(place.device),
        )

    def after(step: int) -> None:
        if (step + 1) % per_epoch == 0 and place.first:
            best.look()

    total = config.epochs * per_epoch
    steps = loop.Steps(total, lambda _: config.rate, config.seed, save_every=per_epoch)
    loop.run(loop.Trained(module, optimizer), batch, steps, out, place, after)
    return best.kept()


def best_threshold(truth: npt.NDArray[np.bool_], logits: npt.NDArray[np.float64]) -> float:
    """The most accurate of -5, -4.8, ... 2; the lowest of several."""
    tried = np.arange(LOWEST, HIGHEST + STRIDE / 2, STRIDE)
    right = [float(((logits >= value) == truth).mean()) for value in tried]
    return round(float(tried[int(np.argmax(right))]), 6)


class _Best:
    """Looks at the validation studies and keeps what is better than before, across restarts."""

    def __init__(
        self,
        labels: tuple[str, ...],
        module: HeadLoss,
        validation: tuple[Embeddings, Truth],
        out: Path,
        place: Place,
    ) -> None:
        self._labels, self._module, self._out = labels, module, out
        self._embeddings = torch.from_numpy(validation[0]).to(place.device)
        self._truth = validation[1]
        self._file = out / "best.json"
        self._found: dict[str, dict[str, float]] = {}
        if self._file.is_file() and (out / "checkpoint.pt").is_file():
            self._found = json.loads(self._file.read_text(encoding="utf-8"))

    def look(self) -> None:
        """After an epoch."""
        logits = self._logits()
        for name, index, score, threshold in self._scores(logits):
            if score <= self._found.get(name, {}).get("auroc", -1.0):
                continue
            state = {k: v.detach().cpu() for k, v in self._module.network.state_dict().items()}
            _replace(self._path(name), functools.partial(torch.save, state))
            self._found[name] = {"auroc": score, "threshold": threshold, "index": index}
        text = json.dumps(self._found, indent=1)
        _replace(self._file, lambda file: file.write_text(text, encoding="utf-8"))

    def kept(self) -> list[KeptHead]:
        """In the order of the labels."""
        names = ("priority",) if self._module.exclusive else self._labels
        return [
            KeptHead(name, self._path(name), int(f["index"]), f["threshold"], f["auroc"])
            for name in names
            if (f := self._found.get(name))
        ]

    def _path(self, name: str) -> Path:
        return self._out / f"{name}.pt"

    @torch.no_grad()
    def _logits(self) -> npt.NDArray[np.float64]:
        self._module.eval()
        found = self._module.network(self._embeddings).double().cpu().numpy()
        self._module.train()
        return np.asarray(found, dtype=np.float64)

    def _scores(self, logits: npt.NDArray[np.float64]) -> list[tuple[str, int, float, float]]:
        if self._module.exclusive:
            score = _mean_auroc(self._truth, logits)
            return [] if score is None else [("priority", 0, score, 0.0)]
        found = []
        for index, name in enumerate(self._labels):
            known = self._truth[:, index] != UNKNOWN
            truth, scores = self._truth[known, index] == 1, logits[known, index]
            auroc = metrics.auroc(truth, scores)
            if auroc is not None:
                found.append((name, index, auroc, best_threshold(truth, scores)))
        return found


def _mean_auroc(levels: Truth, logits: npt.NDArray[np.float64]) -> float | None:
    """Of each level against the others, over the levels that validation has."""
    known = levels != UNKNOWN
    found = [
        value
        for level in range(logits.shape[1])
        if (value := metrics.auroc(levels[known] == level, logits[known, level])) is not None
    ]
    return float(np.mean(found)) if found else None


def _weights(truth: Truth, outputs: int, *, exclusive: bool) -> Tensor:
    """Negatives for each positive; of levels, the inverse of how often they occur."""
    if exclusive:
        counts = np.array([(truth == level).sum() for level in range(outputs)], dtype=np.float64)
        weights = counts.sum() / np.maximum(counts, 1) / outputs
    else:
        positives, negatives = (truth == 1).sum(axis=0), (truth == 0).sum(axis=0)
        weights = np.where(positives > 0, negatives / np.maximum(positives, 1), 1.0)
    return torch.from_numpy(np.clip(weights, 0.01, 1000.0).astype(np.float32))


def _replace(file: Path, write: Callable[[Path], object]) -> None:
    temporary = file.with_suffix(".tmp")
    write(temporary)
    temporary.replace(file)

"""Which series make a batch, and how their tokens are varied; a function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from inference.neurovfm.tokens import BLOCK, Window
from training.data.shards import Cache, CachedSeries, CachedStudy

T = TypeVar("T")

WINDOW_CHANCES: Mapping[str, float] = {
    Window.BRAIN.value: 0.7,
    Window.BLOOD.value: 0.15,
    Window.BONE.value: 0.15,
}
"""How often each window of a CT is shown in pretraining (arXiv 2511.18640)."""


@dataclass(frozen=True)
class Batching:
    """How studies become batches of series.

    Attributes:
        series: series in a batch.
        per_study: at most this many of one study in an epoch; a study is then kept together.
        rank, world: this process and how many share the epoch; each gets every world-th batch.
    """

    series: int = 8
    per_study: int = 4
    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class Augmentation:
    """Chance of exchanging rows and columns, and of mirroring each axis."""

    swap: float = 0.5
    flip: tuple[float, float, float] = (0.5, 0.5, 0.5)


NO_AUGMENTATION = Augmentation(0.0, (0.0, 0.0, 0.0))


@dataclass(frozen=True, eq=False)
class SeriesSample:
    """Tokens of a series, perhaps varied.

    Attributes:
        tokens: float32 [N, 1024], 0..1.
        coords: int64 [N, 3].
        grid: tokens along depth, rows and columns.
        window: value of `Window`.
        mode: ``ct`` or ``mri``.
    """

    tokens: npt.NDArray[np.float32]
    coords: npt.NDArray[np.int64]
    grid: tuple[int, int, int]
    window: str
    mode: str

    @property
    def foreground(self) -> npt.NDArray[np.bool_]:
        """Bool [D * H * W]: where the grid has a token."""
        mask = np.zeros(self.grid, dtype=np.bool_)
        mask[tuple(self.coords.T)] = True
        return mask.ravel()


@dataclass(frozen=True)
class Sampler:
    """Draws the batches of an epoch.

    Attributes:
        studies: what to draw from.
        batching: sizes.
        seed: of the run.
        windows: chances of the windows of a CT.
    """

    studies: Sequence[CachedStudy]
    batching: Batching
    seed: int
    windows: Mapping[str, float] = field(default_factory=lambda: WINDOW_CHANCES)

    def epoch(self, number: int) -> list[list[CachedSeries]]:
        """This process' batches; all processes have equally many, the odd rest is left out."""
        rng = np.random.default_rng((self.seed, number))
        order = rng.permutation(len(self.studies))
        flat = [one for i in order for one in self._of(self.studies[i], rng)]
        size = self.batching.series
        batches = [flat[i : i + size] for i in range(0, len(flat) - size + 1, size)]
        if not batches and flat:
            batches = [flat]
        whole = len(batches) // self.batching.world * self.batching.world
        return batches[self.batching.rank : whole : self.batching.world]

    def _of(self, study: CachedStudy, rng: np.random.Generator) -> list[CachedSeries]:
        """One series for each volume of the study: a CT shows one of its windows."""
        volumes: dict[str, list[CachedSeries]] = {}
        for one in study.series:
            volumes.setdefault(one.name.rpartition("_")[0], []).append(one)
        chosen = []
        for windows in volumes.values():
            chances = np.array([self.windows.get(one.window, 1.0) for one in windows])
            chosen.append(windows[int(rng.choice(len(windows), p=chances / chances.sum()))])
        keep = rng.permutation(len(chosen))[: self.batching.per_study]
        return [chosen[i] for i in sorted(keep)]


def read_sample(cache: Cache, one: CachedSeries) -> SeriesSample:
    """A series as it lies in the cache."""
    return SeriesSample(
        tokens=cache.tokens(one).astype(np.float32) / np.float32(255),
        coords=cache.coords(one).astype(np.int64),
        grid=one.grid,
        window=one.window,
        mode="ct" if one.modality == "CT" else "mri",
    )


def vary(sample: SeriesSample, how: Augmentation, rng: np.random.Generator) -> SeriesSample:
    """Exchange rows and columns, mirror axes: voxels, coordinates and grid together.

    The published code varies the voxels only and leaves coordinates and size as they were.
    """
    blocks = sample.tokens.reshape(-1, *BLOCK)
    coords, grid = sample.coords, sample.grid
    if rng.random() < how.swap:
        blocks, coords = blocks.swapaxes(2, 3), coords[:, [0, 2, 1]]
        grid = (grid[0], grid[2], grid[1])
    coords = coords.copy()
    for axis, chance in enumerate(how.flip):
        if rng.random() < chance:
            blocks = np.flip(blocks, axis + 1)
            coords[:, axis] = grid[axis] - 1 - coords[:, axis]
    order = np.lexsort(coords.T[::-1])  # raster order again
    tokens = np.ascontiguousarray(blocks[order]).reshape(len(order), -1)
    return SeriesSample(tokens, coords[order], grid, sample.window, sample.mode)


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Make the next items on another thread while this one is used."""
    iterator = iter(items)
    end = object()
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(next, iterator, end) for _ in range(depth)]
        while waiting:
            item = waiting.pop(0).result()
            if item is end:
                return
            waiting.append(pool.submit(next, iterator, end))
            yield item  # type: ignore[misc]

"""Token cache: every case made once, preprocessed as the agent does, with token-level truth.

A cached study is one `.npz` file. Tokens are stored as uint8 (the training system of the paper
caches them so too); what a token shows is stored as the share of its volume inside each mask.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from inference.neurovfm.preprocess import PreparedVolume, preprocess_volume
from inference.neurovfm.tokens import BLOCK, Window
from training.demo_pack.cases import Case
from training.synthetic.labels import label_ids
from training.synthetic.study import SyntheticSeries
from training.workers import one_thread

log = structlog.get_logger(__name__)

TOKEN_MM3 = float(np.prod(BLOCK)) * 4.0
"""Volume of a token in model space: 4 x 16 x 16 voxels of 4 x 1 x 1 mm."""


@dataclass(frozen=True, eq=False)
class CachedStudy:
    """Tokens of one study, all series after another.

    Attributes:
        tokens: uint8 [N, 1024]; divide by 255.
        coords: int16 [N, 3].
        lengths: int64 [S], tokens per series (a CT gives one series a window).
        windows: position of each series' window in `Window`.
        shares: uint8 [N, L]; share of the token's volume inside each label's mask, times 255.
        labels: uint8 [L], 1 where the label is true of the study.
        side: int16 [S], columns of each series' token grid; needed to mirror it.
    """

    key: str
    modality: str
    tokens: npt.NDArray[np.uint8]
    coords: npt.NDArray[np.int16]
    lengths: npt.NDArray[np.int64]
    windows: npt.NDArray[np.int64]
    shares: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    side: npt.NDArray[np.int16]


def build_cache(cases: Sequence[Case], folder: Path, workers: int) -> None:
    """Make every case that is not in `folder` yet, on `workers` processes of one thread each."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [case for case in cases if not _path(folder, case).is_file()]
    started = time.monotonic()
    for done, _ in enumerate(_each(missing, folder, workers), start=1):
        if done % 25 == 0 or done == len(missing):
            spent_s = time.monotonic() - started
            log.info(
                "studies_cached",
                done=done,
                of=len(missing),
                eta_s=round(spent_s / done * (len(missing) - done)),
            )


def load_cache(cases: Sequence[Case], folder: Path) -> list[CachedStudy]:
    """Read cached cases into memory, about 2 MB each."""
    studies = []
    for case in cases:
        with np.load(_path(folder, case)) as stored:
            studies.append(CachedStudy(key=case.key, modality=case.modality, **stored))
    return studies


def tokenize_study(
    series: Sequence[SyntheticSeries], modality: str, true: frozenset[str], key: str = ""
) -> CachedStudy:
    """Preprocess the series of a study by the agent's own rules and attach the truth."""
    labels = label_ids(modality)
    parts: list[tuple[PreparedVolume, npt.NDArray[np.uint8]]] = []
    for one in series:
        prepared = preprocess_volume(one.array, one.affine, modality, mode="safe")
        parts.append((prepared, _shares(one, prepared, labels)))
    flat = [(part, shares) for prepared, shares in parts for part in prepared.series]
    order = list(Window)
    return CachedStudy(
        key=key,
        modality=modality,
        tokens=np.concatenate([np.rint(p.tokens * 255).astype(np.uint8) for p, _ in flat]),
        coords=np.concatenate([p.coords for p, _ in flat]).astype(np.int16),
        lengths=np.array([len(p.tokens) for p, _ in flat], dtype=np.int64),
        windows=np.array([order.index(p.window) for p, _ in flat], dtype=np.int64),
        shares=np.concatenate([shares for _, shares in flat]),
        labels=np.array([label in true for label in labels], dtype=np.uint8),
        side=np.array([p.grid[2] for p, _ in flat], dtype=np.int16),
    )


def _shares(
    series: SyntheticSeries, prepared: PreparedVolume, labels: Sequence[str]
) -> npt.NDArray[np.uint8]:
    """Share of each foreground token's volume inside each mask, times 255."""
    to_grid = np.linalg.inv(prepared.grid_to_patient) @ series.affine
    voxel_mm3 = abs(np.linalg.det(series.affine[:3, :3]))
    grid = prepared.grid
    coords = prepared.series[0].coords
    shares = np.zeros((len(coords), len(labels)), dtype=np.uint8)
    for column, label in enumerate(labels):
        if label not in series.masks:
            continue
        voxels = np.argwhere(series.masks[label])
        at = np.rint(voxels @ to_grid[:3, :3].T + to_grid[:3, 3]).astype(np.int64)
        at = at[((at >= 0) & (at < grid)).all(axis=1)]
        counts = np.bincount(np.ravel_multi_index(tuple(at.T), grid), minlength=int(np.prod(grid)))
        share = counts.reshape(grid)[tuple(coords.T)] * voxel_mm3 / TOKEN_MM3
        shares[:, column] = np.rint(share.clip(0.0, 1.0) * 255)
    return shares


def _each(cases: Sequence[Case], folder: Path, workers: int) -> Iterator[str]:
    if workers <= 1 or len(cases) < 4:
        for case in cases:
            yield _cache_one(case, folder)
        return
    # Fresh processes: a fork of one that already runs torch threads may hang.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, initializer=one_thread) as pool:
        yield from pool.map(_cache_one, cases, [folder] * len(cases), chunksize=4)


def _cache_one(case: Case, folder: Path) -> str:
    """Make, tokenize and store one case; its name is the answer."""
    study = case.make()
    cached = tokenize_study(study.series, case.modality, study.labels, case.key)
    arrays: dict[str, Any] = {k: v for k, v in vars(cached).items() if isinstance(v, np.ndarray)}
    path = _path(folder, case)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.replace(path)
    return case.key


def _path(folder: Path, case: Case) -> Path:
    return folder / f"{case.key}.npz"

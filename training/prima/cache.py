"""Two caches of Prima's studies: blocks of voxels for the tokenizer, latents for everything after.

One safetensors file a study, written whole or not at all, so that a stopped run goes on where it
was. File names are digests of the study's identifier. Legend: N all tokens of a volume, n stored.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from inference.errors import InferenceError
from inference.prima.analyse import encode
from inference.prima.filtering import ENOUGH_TOKENS, tokens_from
from inference.prima.patches import token_side
from inference.prima.preparation import DESCRIPTION, make_series, prepare
from inference.prima.series import PrimaSeries, PrimaStudy
from inference.prima.vqvae import Tokenizer
from inference.study import StudyInput
from training.data.errors import DataError
from training.data.studies import NIFTI, group_series
from training.data.table import StudyRow

log = structlog.get_logger(__name__)

Progress = Callable[[int, int, float], None]
LOWEST_PERCENT = 3
"""Of the foreground filter as it is varied in training; tokens below it are not stored."""
BLOCK_SIDES = (4, 32, 32)


@dataclass(frozen=True, eq=False)
class LatentSeries:
    """A series as the study model's training reads it.

    Attributes:
        name: as the series-name encoder reads it.
        axis: the thin one.
        grid: tokens along z, y, x.
        percent: of the foreground filter in inference.
        bins: uint8 [N], percent of each token's voxels that are foreground, rounded down.
        numbers: int32 [n], the stored tokens, ascending.
        latents: float16 [n, 2, ...], of the tokenizer.
    """

    name: str
    axis: int
    grid: tuple[int, int, int]
    percent: int
    bins: torch.Tensor
    numbers: torch.Tensor
    latents: torch.Tensor

    def chosen(self, percent: int) -> npt.NDArray[np.int64]:
        """Rows of `latents` that the filter passes at a percentage, in the model's order.

        Where inference needed a lower one to have enough tokens, that one is taken.
        """
        bins = self.bins.numpy().astype(np.float64)
        kept = tokens_from(bins, self.grid, max(LOWEST_PERCENT, percent))
        if self.percent < LOWEST_PERCENT or len(kept) <= ENOUGH_TOKENS:
            kept = tokens_from(bins, self.grid, self.percent)
        return np.searchsorted(self.numbers.numpy(), kept)

    def coords(self) -> torch.Tensor:
        """int64 [n, 3], first voxel (z, y, x) of each stored token."""
        places = np.stack(np.unravel_index(self.numbers.numpy(), self.grid), axis=1)
        return torch.from_numpy(places * np.array(token_side(self.axis)))


@dataclass(frozen=True, eq=False)
class LatentStudy:
    """A study of the latent cache."""

    study: str
    description: str
    series: tuple[LatentSeries, ...]


@dataclass(frozen=True)
class CacheReport:
    """What a run did: studies stored, found, and refused with their reasons."""

    stored: int
    known: int
    refused: Mapping[str, str]


def cache_latents(
    rows: Sequence[StudyRow], folder: Path, tokenizer: Tokenizer, progress: Progress | None = None
) -> CacheReport:
    """Every study through preparation and tokenizer, once."""
    return _each(rows, folder, lambda study, file: _store_latents(study, file, tokenizer), progress)


def cache_blocks(
    rows: Sequence[StudyRow], folder: Path, per_series: int = 400, progress: Progress | None = None
) -> CacheReport:
    """Blocks of voxels of every study, for the tokenizer's training.

    Args:
        rows: the studies.
        folder: of the cache.
        per_series: at most so many of a series, spread over it.
        progress: told (done, of, seconds left).
    """
    return _each(rows, folder, lambda study, file: _store_blocks(study, file, per_series), progress)


def write_latents(file: Path, study: LatentStudy) -> None:
    """Store a study whole or not at all."""
    tensors: dict[str, torch.Tensor] = {}
    for place, one in enumerate(study.series):
        parts = {"bins": one.bins, "numbers": one.numbers, "latents": one.latents}
        tensors |= {f"{place}.{name}": value.contiguous() for name, value in parts.items()}
    facts = [
        {"name": s.name, "axis": s.axis, "grid": s.grid, "percent": s.percent} for s in study.series
    ]
    about = {"study": study.study, "description": study.description, "series": facts}
    _write(file, tensors, about)


def write_blocks(file: Path, study: str, blocks: Sequence[torch.Tensor]) -> None:
    """Store float16 [n, 4, 32, 32] of each series, the thin axis first."""
    _write(file, {"blocks": torch.cat(list(blocks)).half().contiguous()}, {"study": study})


def read_latents(file: Path) -> LatentStudy:
    """A study of the cache, whole in memory."""
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["about"])
        series = tuple(
            LatentSeries(
                name=fact["name"],
                axis=fact["axis"],
                grid=tuple(fact["grid"]),
                percent=fact["percent"],
                bins=opened.get_tensor(f"{place}.bins"),
                numbers=opened.get_tensor(f"{place}.numbers"),
                latents=opened.get_tensor(f"{place}.latents"),
            )
            for place, fact in enumerate(about["series"])
        )
    return LatentStudy(about["study"], about["description"], series)


def count_blocks(file: Path) -> int:
    """Blocks of a study."""
    with safe_open(file, framework="pt") as opened:
        return int(opened.get_slice("blocks").get_shape()[0])


def read_blocks(file: Path, rows: Sequence[int]) -> torch.Tensor:
    """float32 [n, 4, 32, 32]: these blocks of a study."""
    with safe_open(file, framework="pt") as opened:
        found: torch.Tensor = opened.get_tensor("blocks")[list(rows)].float()
    return found


def file_of(folder: Path, study: str) -> Path:
    """Where a study lies in a cache."""
    return folder / f"{hashlib.sha256(study.encode()).hexdigest()[:32]}.safetensors"


def present(folder: Path, studies: Sequence[str]) -> dict[str, Path]:
    """Files of those studies that the cache holds.

    Raises:
        DataError: it holds none of them.
    """
    found = {s: file for s in studies if (file := file_of(folder, s)).is_file()}
    if not found:
        raise DataError(f"{folder}: holds none of the studies; fill it with: train prima-cache")
    return found


def prepare_row(row: StudyRow) -> PrimaStudy:
    """A study of the table, DICOM or NIfTI, as the agent itself prepares it.

    Raises:
        DataError: nothing of it can be read.
    """
    if not row.path.exists():
        raise DataError("its path does not exist")
    nifti = [row.path] if row.path.is_file() else sorted(row.path.glob("*.nii*"))
    nifti = [file for file in nifti if file.name.endswith(NIFTI)]
    if nifti:
        study = PrimaStudy(tuple(_from_nifti(nifti)), description=DESCRIPTION)
    else:
        series = tuple(one for one in group_series(row.path) if one.modality == "MR")
        study = prepare(StudyInput(row.study, "MR", series))
    if not any(len(one.kept) for one in study.series):
        why = "; ".join(sorted({s.reason for s in study.skipped})[:3]) or "no MR series"
        raise DataError(f"nothing of the study can be read: {why}")
    return study


def _from_nifti(files: Sequence[Path]) -> Iterator[PrimaSeries]:
    import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation

    for file in files:
        try:
            yield make_series(sitk.ReadImage(str(file)), file.name.split(".")[0], "safe")
        except (InferenceError, RuntimeError) as error:
            log.info("prima_series_skipped", reason=str(error).splitlines()[0])


def _each(
    rows: Sequence[StudyRow],
    folder: Path,
    store: Callable[[tuple[str, PrimaStudy], Path], None],
    progress: Progress | None,
) -> CacheReport:
    folder.mkdir(parents=True, exist_ok=True)
    missing = [row for row in rows if not file_of(folder, row.study).is_file()]
    refused: dict[str, str] = {}
    started = time.monotonic()
    for done, row in enumerate(missing, start=1):
        try:
            store((row.study, prepare_row(row)), file_of(folder, row.study))
        except (DataError, InferenceError) as error:
            refused[row.study] = str(error)
            log.warning("study_not_cached", why=str(error))
        if progress is not None:
            left = (time.monotonic() - started) / done * (len(missing) - done)
            progress(done, len(missing), left)
    return CacheReport(len(missing) - len(refused), len(rows) - len(missing), refused)


def _store_latents(given: tuple[str, PrimaStudy], file: Path, tokenizer: Tokenizer) -> None:
    name, study = given
    series = tuple(_latents(one, tokenizer) for one in study.series if len(one.kept))
    write_latents(file, LatentStudy(name, study.description, series))


def _latents(series: PrimaSeries, tokenizer: Tokenizer) -> LatentSeries:
    import dataclasses

    lowest = min(LOWEST_PERCENT, series.percent)
    wider = np.unique(tokens_from(series.values, series.patches.grid, lowest))
    encoded = encode(dataclasses.replace(series, kept=wider), tokenizer)
    return LatentSeries(
        name=series.name,
        axis=series.axis,
        grid=series.patches.grid,
        percent=series.percent,
        bins=torch.from_numpy(np.floor(series.values).astype(np.uint8)),
        numbers=torch.from_numpy(wider.astype(np.int32)),
        latents=encoded.latents.half(),
    )


def _store_blocks(given: tuple[str, PrimaStudy], file: Path, per_series: int) -> None:
    name, study = given
    parts = []
    for series in study.series:
        numbers = np.unique(series.kept)
        if not len(numbers):
            continue
        spread = np.linspace(0, len(numbers) - 1, min(per_series, len(numbers))).astype(int)
        blocks = torch.from_numpy(series.patches.gather(numbers[spread]))
        parts.append(blocks.movedim(series.axis + 1, 1))
    write_blocks(file, name, parts)


def _write(file: Path, tensors: dict[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    save_file(tensors, temporary, {"format": "pt", "about": json.dumps(about)})
    temporary.replace(file)

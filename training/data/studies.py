"""Finds the series of a study on disk and tokenizes them by the agent's own rules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from inference.errors import InferenceError
from inference.neurovfm.preprocess import preprocess_image, preprocess_volume
from inference.neurovfm.tokens import SeriesTokens
from inference.study import IMAGE_MODALITIES, SeriesInput
from inference.volumes import read_series
from inference.volumes.model_grid import model_grid
from training.data.errors import DataError
from training.data.table import StudyRow

log = structlog.get_logger(__name__)

NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True, eq=False)
class TokenizedSeries:
    """One series as the cache stores it; a CT series appears once a window.

    Attributes:
        name: series UID or file stem, with the window.
        modality: ``CT`` or ``MR``.
        window: value of `inference.neurovfm.tokens.Window`.
        tokens: uint8 [N, 1024], foreground only; read back as value / 255.
        coords: int16 [N, 3], (d, h, w).
        grid: tokens along depth, rows and columns.
    """

    name: str
    modality: str
    window: str
    tokens: npt.NDArray[np.uint8]
    coords: npt.NDArray[np.int16]
    grid: tuple[int, int, int]


def tokenize_study(row: StudyRow) -> list[TokenizedSeries]:
    """All series of a study that a model can read; the others are skipped.

    Raises:
        DataError: nothing of the study can be read.
    """
    reasons: list[str] = []
    found = [one for part in _volumes(row, reasons) for one in part]
    if not found:
        said = "; ".join(sorted(set(reasons))[:3]) or "no DICOM or NIfTI file"
        raise DataError(f"nothing of the study can be read: {said}")
    return found


def _volumes(row: StudyRow, reasons: list[str]) -> Iterator[list[TokenizedSeries]]:
    if not row.path.exists():
        raise DataError("its path does not exist")
    nifti = _nifti_files(row.path)
    if nifti:
        if not row.modality:
            raise DataError("NIfTI files say no modality; fill the table's column 'modality'")
        for file in nifti:
            yield from _nifti(file, row.modality, reasons)
        return
    for series in group_series(row.path):
        if row.modality and series.modality != row.modality:
            continue
        yield from _dicom(series, reasons)


def _nifti(file: Path, modality: str, reasons: list[str]) -> Iterator[list[TokenizedSeries]]:
    import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation

    try:
        made = preprocess_image(sitk.ReadImage(str(file)), modality)
    except (InferenceError, RuntimeError) as error:
        reasons.append(str(error) if isinstance(error, InferenceError) else "unreadable NIfTI file")
        return
    yield [_stored(f"{file.name}", modality, one) for one in made.series]


def _dicom(series: SeriesInput, reasons: list[str]) -> Iterator[list[TokenizedSeries]]:
    try:
        volumes = read_series(series, modality=series.modality).volumes
    except InferenceError as error:
        reasons.append(str(error))
        return
    for number, volume in enumerate(volumes):
        try:
            grid = model_grid(volume)
            made = preprocess_volume(
                grid.array, grid.affine, series.modality, spacing_mm=grid.spacing_mm
            )
        except InferenceError as error:
            reasons.append(str(error))
            continue
        name = series.series_uid if number == 0 else f"{series.series_uid}#{number}"
        yield [_stored(name, series.modality, one) for one in made.series]


def _stored(name: str, modality: str, made: SeriesTokens) -> TokenizedSeries:
    return TokenizedSeries(
        name=f"{name}_{made.window.value}",
        modality=modality,
        window=made.window.value,
        # Truncated, as the published cache is: the model sees value / 255.
        tokens=(made.tokens * 255).astype(np.uint8),
        coords=made.coords.astype(np.int16),
        grid=made.grid,
    )


def _nifti_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name.endswith(NIFTI) else []
    return sorted(p for p in path.iterdir() if p.name.endswith(NIFTI))


def group_series(path: Path) -> list[SeriesInput]:
    """The image series below a path, by the Series Instance UID in their headers."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    tags = ["SeriesInstanceUID", "Modality", "SeriesDescription"]
    groups: dict[str, tuple[Any, list[Path]]] = {}
    for file in _files(path):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
        except (InvalidDicomError, OSError, EOFError):
            continue
        if str(header.get("Modality", "")) in IMAGE_MODALITIES and "SeriesInstanceUID" in header:
            groups.setdefault(str(header.SeriesInstanceUID), (header, []))[1].append(file)
    return [
        SeriesInput(uid, str(head.Modality), str(head.get("SeriesDescription", "")), tuple(files))
        for uid, (head, files) in sorted(groups.items())
    ]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, _, names in sorted(os.walk(path)):
        yield from (Path(folder) / name for name in sorted(names))

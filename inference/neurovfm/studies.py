"""The official `StudyPreprocessor`: image files of a study in, the official batch out."""
# SimpleITK's methods carry no annotations:
# mypy: allow-untyped-calls

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation
import structlog
import torch

from inference.errors import ConfigError, NoVolumeError, VolumeError
from inference.neurovfm.batching import pack
from inference.neurovfm.preprocess import PreparedVolume, preprocess_image
from inference.neurovfm.resampling import Rules
from inference.neurovfm.tokens import BLOCK, SeriesTokens

log = structlog.get_logger(__name__)

PathLike = str | os.PathLike[str]
SUFFIXES = (".nii.gz", ".nii", ".dcm")


@dataclass(frozen=True)
class Source:
    """One volume to load: a file, or the files of one DICOM series.

    Attributes:
        name: what the official batch calls it.
        files: one file, or the slices of a series in spatial order.
    """

    name: str
    files: tuple[str, ...]


class StudyPreprocessor:
    """Loads the volumes of a study and makes the batch that encoder and heads take."""

    def __init__(
        self,
        patch_size: tuple[int, int, int] = BLOCK,
        target_spacing: tuple[float, float, float] = (1.0, 1.0, 4.0),
        remove_background: bool = True,
        rules: Rules = "reference",
    ) -> None:
        """Keep the settings.

        Args:
            patch_size: (4, 16, 16); the models know no other.
            target_spacing: accepted and without effect, as in the reference.
            remove_background: leave out tokens that hold any background voxel.
            rules: "reference" for the published numbers, "safe" for the agent's own path.

        Raises:
            ConfigError: another patch size.
        """
        if tuple(patch_size) != BLOCK:
            raise ConfigError(f"patch_size {tuple(patch_size)}: the models take {BLOCK} only")
        self.target_spacing = target_spacing
        self.remove_background = remove_background
        self.rules = rules

    def load_study(
        self, study_path: PathLike | Sequence[PathLike], modality: str = "mri"
    ) -> dict[str, Any]:
        """Load a directory, a file, or a list of files and DICOM directories as one study.

        Volumes that cannot be read are left out. Directories are not searched deeper.

        Returns:
            The official batch: img, coords, series_cu_seqlens, study_cu_seqlens, series_max_len,
            study_max_len, series_masks_indices, mode, path, size.

        Raises:
            FileNotFoundError: a named file or directory does not exist.
            NoVolumeError: (a ValueError) nothing could be loaded.
        """
        names: list[str] = []
        series: list[SeriesTokens] = []
        for index, source in enumerate(find_sources(study_path)):
            try:
                volume = self._load(source, modality)
            except VolumeError as error:
                log.warning("volume_skipped", index=index, reason=str(error))
                continue
            series += volume.series
            names += [_series_name(source.name, part) for part in volume.series]
        if not series:
            raise NoVolumeError("No valid volumes loaded: each was unreadable or too small")
        return make_batch(series, names, modality)

    def _load(self, source: Source, modality: str) -> PreparedVolume:
        return preprocess_image(
            read_image(source), modality, self.rules, remove_background=self.remove_background
        )


def make_batch(
    series: Sequence[SeriesTokens], names: Sequence[str], modality: str
) -> dict[str, Any]:
    """The official batch of one study."""
    packed = pack(series)
    edges = torch.tensor([0, *packed.lengths]).cumsum(0).to(torch.int32)
    return {
        "img": packed.tokens,
        "coords": packed.coords,
        "series_masks_indices": torch.tensor([]),
        "series_cu_seqlens": edges,
        "series_max_len": max(packed.lengths),
        "study_cu_seqlens": torch.tensor([0, len(packed.tokens)], dtype=torch.int32),
        "study_max_len": len(series),
        "mode": [modality] * len(series),
        "path": list(names),
        "size": [part.size for part in series],
    }


def find_sources(study: PathLike | Sequence[PathLike]) -> list[Source]:
    """The volumes that a study path or list names, in the reference's order.

    Raises:
        FileNotFoundError: a named file or directory does not exist.
        NoVolumeError: a directory without image files.
    """
    if not isinstance(study, str | os.PathLike):
        return [source for item in study for source in _one_item(Path(item))]
    path = Path(study)
    if not path.is_dir():
        return list(_one_item(path))
    found = sorted(item for item in path.iterdir() if item.name.endswith(SUFFIXES))
    if not found:
        raise NoVolumeError("No valid image files found: expected .nii.gz, .nii or .dcm")
    return list(_sources_of_directory(path, found))


def read_image(source: Source) -> sitk.Image:
    """Read a source's file or series.

    Raises:
        VolumeError: it is no image that SimpleITK reads.
    """
    try:
        if len(source.files) == 1:
            return sitk.ReadImage(source.files[0])
        return sitk.ReadImage(source.files)
    except RuntimeError as error:
        # ITK's message holds file paths, which do not belong into logs.
        raise VolumeError("not readable as an image") from error


def _one_item(path: Path) -> Iterator[Source]:
    """An element of a list: a file, or a directory that holds one DICOM series (its first)."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or directory")
    if path.is_dir():
        yield Source(str(path), tuple(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))))
    else:
        yield Source(str(path), (str(path),))


def _sources_of_directory(directory: Path, found: Sequence[Path]) -> Iterator[Source]:
    """Every file is a volume, but loose DICOM slices are gathered into their series.

    The reference takes each slice for a volume and fails on it.
    """
    loose = {str(item) for item in found if item.suffix == ".dcm" and _is_slice(item)}
    yield from (Source(str(item), (str(item),)) for item in found if str(item) not in loose)
    if not loose:
        return
    reader = sitk.ImageSeriesReader
    ids = reader.GetGDCMSeriesIDs(str(directory))
    for uid in ids:
        files = tuple(f for f in reader.GetGDCMSeriesFileNames(str(directory), uid) if f in loose)
        if files:
            yield Source(str(directory if len(ids) == 1 else directory / uid), files)


def _is_slice(path: Path) -> bool:
    """Whether a DICOM file holds one frame; unreadable files are left to fail on their own."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False
    size = reader.GetSize()
    return len(size) < 3 or size[2] == 1


def _series_name(source: str, part: SeriesTokens) -> str:
    """CT: the file's stem and the window; MR: the path itself, as the reference names them."""
    return source if part.mode == "mri" else f"{Path(source).stem}_{part.window}"

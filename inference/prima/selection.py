"""Series of an official study directory: which files belong to one, in which order, and its name.

The order is that of the published pipeline: natural order of the file names, which need not be
the order of the slices. The agent's own path sorts by position (`preparation.prepare`).
"""
# SimpleITK's methods carry no annotations:
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation

from inference.errors import VolumeError
from inference.prima.names import natural_key, series_name
from inference.volumes import guards
from inference.volumes.volume import Limits

NO_DIRECTORY = "not a directory"
TAGS = ["SeriesDescription", "ProtocolName", "SeriesInstanceUID", "StudyDescription"]


@dataclass(frozen=True)
class Header:
    """What the model and the report need of a file's header; empty where absent.

    `readable` is False where the file gave no name: no DICOM, or texts of several values.
    """

    description: str = ""
    protocol: str = ""
    series_uid: str = ""
    study_description: str = ""
    readable: bool = True

    def name(self, otherwise: str) -> str:
        """The series' name for the model; `otherwise` where the header could not be read."""
        if not self.readable:
            return otherwise
        return series_name(self.description, self.protocol, self.series_uid)


def entries(study_dir: Path) -> list[Path]:
    """What lies in a study directory, in the reference's order of series."""
    return sorted(sorted(study_dir.iterdir()), key=lambda path: natural_key(path.name))


def series_files(directory: Path) -> list[str]:
    """Files of a directory's first series, only those of the most common size, by file name.

    Raises:
        VolumeError: there is none, or one of them is no image.
    """
    found: tuple[str, ...] = ()
    if any(directory.iterdir()):
        with _quiet():
            found = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(directory))
    if not found:
        raise VolumeError("no DICOM series in the directory")
    return sorted(most_common_size(found), key=natural_key)


def most_common_size(files: Iterable[str]) -> list[str]:
    """The largest group of files of equal image size; of equal groups the first.

    Raises:
        VolumeError: a file is no image.
    """
    groups: dict[tuple[int, ...], list[str]] = {}
    reader = sitk.ImageFileReader()
    for file in files:
        reader.SetFileName(file)
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            # ITK's message holds file paths, which do not belong into reports.
            raise VolumeError("a file of the series is not readable as an image") from error
        groups.setdefault(tuple(reader.GetSize()), []).append(file)
    return max(groups.values(), key=len, default=[])


def read_image(files: list[str]) -> sitk.Image:
    """The files of a series as one image, in the order given.

    Raises:
        VolumeError: they are no volume of single values.
    """
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    try:
        with _quiet():
            image = reader.Execute()
    except RuntimeError as error:
        raise VolumeError("the files of the series do not form an image") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise VolumeError("not a volume of single values: color and 4D images are not read")
    return _right_handed(image)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ITK's warnings on standard error: they say less than the reason kept, with paths."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _right_handed(image: sitk.Image) -> sitk.Image:
    """The third axis as rows x columns point, whatever the order of the files.

    SimpleITK after 2.5.3 turns it where files run against it. The published numbers were made
    without that: such a volume was upside down, and stays so here.
    """
    direction = np.array(image.GetDirection()).reshape(3, 3)
    if np.linalg.det(direction) < 0:
        direction[:, 2] *= -1
        image.SetDirection(direction.ravel().tolist())
    return image


def read_header(file: str | Path) -> Header:
    """The texts of a DICOM file; unreadable is an answer, not an error."""
    try:
        guards.check_inflated_size(Path(file), Limits())
        ds = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
        values = {tag: ds.get(tag) for tag in TAGS}
    except Exception:  # noqa: BLE001 - damage surfaces as any error, from any depth of pydicom
        return Header(readable=False)
    if any(not isinstance(value or "", str) for value in values.values()):
        return Header(readable=False)
    texts = {tag: str(value or "") for tag, value in values.items()}
    return Header(
        description=texts["SeriesDescription"],
        protocol=texts["ProtocolName"],
        series_uid=texts["SeriesInstanceUID"],
        study_description=texts["StudyDescription"],
    )

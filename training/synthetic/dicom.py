"""Writes synthetic studies as conformant CT and MR files, with what else scanners send.

The same study and tags give the same bytes; UIDs are 2.25 + a hash of seed, modality, accession
number and place in the study.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from training.synthetic.headers import (
    FIRST_SERIES,
    RESCALE_INTERCEPT,
    Origin,
    StudyTags,
    common_elements,
    ct_elements,
    decimal,
    mr_elements,
    series_uids,
    study_uid,
)
from training.synthetic.study import SyntheticSeries, SyntheticStudy

__all__ = ["StudyTags", "series_uids", "study_uid", "write_dicom"]

_IMPLEMENTATION = UID("2.25.203141592653589793238462643383279502884")


def write_dicom(
    study: SyntheticStudy,
    directory: Path,
    tags: StudyTags | None = None,
    *,
    extras: bool = True,
) -> list[Path]:
    """Write a study below `directory`, one folder a series, and return the files in order.

    `tags` are patient and order, harmless defaults when None. `extras` adds a localizer and, for
    CT, a dose page, as scanners do.
    """
    origin = Origin(study, tags or StudyTags())
    files = []
    for folder, number, dataset in _instances(origin, extras=extras):
        path = directory / folder / f"IM{number:04d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def _instances(origin: Origin, *, extras: bool) -> Iterator[tuple[str, int, Dataset]]:
    """(folder, instance number, dataset); the dataset is reused, save it before the next."""
    if extras:
        yield from _localizer(origin)
    for number, series in enumerate(origin.study.series, start=FIRST_SERIES):
        dataset = _image_series(origin, series, number)
        for k in range(series.array.shape[0]):
            _set_plane(dataset, origin, number, series.affine, k)
            pixels = series.array[k].astype(np.int32)
            pixels -= RESCALE_INTERCEPT if series.modality == "CT" else 0
            _set_pixels(dataset, pixels.astype("<u2"))
            yield f"SE{number:03d}", k + 1, dataset
    if extras and origin.study.modality == "CT":
        yield "SE999", 1, _dose_page(origin)


def _image_series(origin: Origin, series: SyntheticSeries, number: int) -> Dataset:
    dataset = common_elements(origin, number, series.name)
    dataset.SOPClassUID = CTImageStorage if series.modality == "CT" else MRImageStorage
    dataset.ProtocolName = "HEAD ROUTINE" if series.modality == "CT" else "BRAIN ROUTINE"
    spacing = np.linalg.norm(series.affine[:3, :3], axis=0)
    dataset.PixelSpacing = [decimal(spacing[1]), decimal(spacing[2])]
    dataset.SliceThickness = decimal(series.thickness_mm)
    dataset.ImageOrientationPatient = [
        decimal(v) for axis in (2, 1) for v in series.affine[:3, axis] / spacing[axis]
    ]
    if series.modality == "CT":
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.update(ct_elements())
    else:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM"]
        dataset.update(mr_elements(series))
        dataset.SpacingBetweenSlices = decimal(spacing[0])
    return dataset


def _localizer(origin: Origin) -> Iterator[tuple[str, int, Dataset]]:
    """A planning view: for CT a scout projection from the front, for MR three thin-out slices."""
    first = origin.study.series[0]
    if first.modality == "MR":
        dataset = _image_series(origin, first, 1)
        dataset.SeriesDescription, dataset.ImageType = "LOCALIZER", _LOCALIZER
        for number, k in enumerate(np.linspace(4, first.array.shape[0] - 5, 3).astype(int), 1):
            _set_plane(dataset, origin, 1, first.affine, int(k), number=number)
            _set_pixels(dataset, first.array[k].astype("<u2"))
            yield "SE001", number, dataset
        return
    dataset = _image_series(origin, first, 1)
    dataset.SeriesDescription, dataset.ImageType = "SCOUT", _LOCALIZER
    del dataset.RescaleType
    view = first.array.mean(axis=1)[::-1]
    front = first.affine.copy()
    front[:3, 3] += front[:3, 0] * (len(view) - 1)
    front[:3, 1], front[:3, 0] = -front[:3, 0], front[:3, 1]
    dataset.PixelSpacing = [decimal(np.linalg.norm(front[:3, 1])), dataset.PixelSpacing[1]]
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
    _set_plane(dataset, origin, 1, front, 0)
    _set_pixels(dataset, (view - RESCALE_INTERCEPT).clip(0, 4095).astype("<u2"))
    yield "SE001", 1, dataset


_LOCALIZER = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def _dose_page(origin: Origin) -> Dataset:
    """A picture of a dose table, as scanners append it: a secondary capture to be ignored."""
    dataset = common_elements(origin, 999, "DOSE REPORT")
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.ConversionType = "SYN"
    dataset.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    del dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator
    dataset.PatientOrientation = ""
    dataset.InstanceNumber = "1"
    page = np.zeros((256, 256), dtype="<u2")
    page[40:216:16, 24:232] = 900
    page[40:216, [24, 96, 164, 231]] = 900
    _identify(dataset, origin, 999, 1)
    _set_pixels(dataset, page)
    return dataset


def _set_plane(
    dataset: Dataset,
    origin: Origin,
    series: int,
    affine: npt.NDArray[np.float64],
    k: int,
    *,
    number: int | None = None,
) -> None:
    position = affine[:3, 3] + k * affine[:3, 0]
    normal = affine[:3, 0] / np.linalg.norm(affine[:3, 0])
    dataset.ImagePositionPatient = [decimal(v) for v in position]
    dataset.SliceLocation = decimal(float(position @ normal))
    dataset.InstanceNumber = str(number or k + 1)
    _identify(dataset, origin, series, number or k + 1)


def _identify(dataset: Dataset, origin: Origin, series: int, number: int) -> None:
    dataset.SOPInstanceUID = origin.uid("instance", series, number)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION
    dataset.file_meta = meta


def _set_pixels(dataset: Dataset, pixels: npt.NDArray[Any]) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()

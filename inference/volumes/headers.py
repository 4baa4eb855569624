"""Read what a series' headers say about each of its frames, without touching pixel data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from inference.volumes import diffusion, elements, functional_groups, guards
from inference.volumes.elements import Floats
from inference.volumes.volume import Limits

KEYWORDS = """
SOPClassUID SOPInstanceUID Modality ImageType Rows Columns NumberOfFrames SamplesPerPixel
PhotometricInterpretation BitsAllocated BitsStored PixelRepresentation PixelPaddingValue
PixelPaddingRangeLimit ImagePositionPatient ImageOrientationPatient PixelSpacing
FrameOfReferenceUID RescaleSlope RescaleIntercept ModalityLUTSequence EchoTime
TemporalPositionIdentifier AcquisitionNumber AcquisitionTime TriggerTime InstanceNumber
DiffusionBValue BurnedInAnnotation LossyImageCompression SharedFunctionalGroupsSequence
PerFrameFunctionalGroupsSequence
"""
TAGS: list[Any] = [*KEYWORDS.split(), *diffusion.VENDOR_TAGS]


@dataclass(frozen=True)
class FrameHeader:
    """One frame: where it lies, what tells it from its neighbors, how its values are coded."""

    path: Path
    sop_uid: str
    sop_class_uid: str
    frame_number: int
    frames_in_file: int
    modality: str
    rows: int
    columns: int
    samples: int
    photometric: str
    bits_stored: int
    signed: bool
    image_type: tuple[str, ...] = ()
    position: Floats | None = None
    orientation: Floats | None = None
    pixel_spacing: Floats | None = None
    frame_of_reference_uid: str = ""
    slope: float = 1.0
    intercept: float = 0.0
    has_rescale: bool = True
    """False when slope and intercept were absent and 1 and 0 were taken."""
    has_modality_lut: bool = False
    padding: tuple[int, int] | None = None
    """Inclusive range of stored values that mean "no data"."""
    b_value: float | None = None
    echo_time: float | None = None
    temporal_position: int | None = None
    acquisition_number: int | None = None
    acquisition_time: str = ""
    trigger_time: float | None = None
    instance_number: int = 0
    burned_in: bool = False
    lossy: bool = False


@dataclass(frozen=True)
class SeriesHeaders:
    """The frames of a series, and how many files could not be used, by reason."""

    frames: tuple[FrameHeader, ...]
    problems: dict[str, int]


def read_headers(files: Iterable[Path], limits: Limits) -> SeriesHeaders:
    """Read the headers of a series' files; a bad file is counted under its reason."""
    frames: dict[tuple[str, int], FrameHeader] = {}
    problems: dict[str, int] = {}
    for path in files:
        try:
            found = read_file(path, limits)
        except guards.RefusedError as refusal:
            problems[str(refusal)] = problems.get(str(refusal), 0) + 1
            continue
        for frame in found:
            frames.setdefault((frame.sop_uid, frame.frame_number), frame)
    return SeriesHeaders(tuple(frames.values()), problems)


def read_file(path: Path, limits: Limits) -> list[FrameHeader]:
    """Read one file's frame headers.

    Raises:
        guards.RefusedError: not DICOM, no image, or absurd; the message
            holds nothing of the content.
    """
    try:
        guards.check_inflated_size(path, limits)
        ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
        return _frames(ds, path, limits)
    except guards.RefusedError:
        raise
    except InvalidDicomError as error:
        raise guards.RefusedError("not a DICOM file") from error
    except OSError as error:
        raise guards.RefusedError("unreadable file") from error
    except Exception as error:
        # A damaged header surfaces as any error, from any depth of pydicom.
        raise guards.RefusedError("damaged header") from error


def _frames(ds: Dataset, path: Path, limits: Limits) -> list[FrameHeader]:
    if not ds.get("SOPInstanceUID") or not ds.get("Rows") or not ds.get("Columns"):
        raise guards.RefusedError("no image")
    count = elements.integer(ds, "NumberOfFrames") or 1
    guards.check_frame_size(int(ds.Rows), int(ds.Columns), count, limits)
    base = _common(ds, path, count)
    if "PerFrameFunctionalGroupsSequence" not in ds:
        plane = _classic(ds)
        return [FrameHeader(frame_number=n + 1, **base, **plane) for n in range(count)]
    per_frame = functional_groups.read(ds)[:count]
    if len(per_frame) < count:
        raise guards.RefusedError("fewer functional groups than frames")
    return [FrameHeader(frame_number=n + 1, **{**base, **g}) for n, g in enumerate(per_frame)]


def _common(ds: Dataset, path: Path, count: int) -> dict[str, Any]:
    return {
        "path": path,
        "sop_uid": str(ds.SOPInstanceUID),
        "sop_class_uid": str(ds.get("SOPClassUID", "")),
        "frames_in_file": count,
        "modality": str(ds.get("Modality", "")),
        "rows": int(ds.Rows),
        "columns": int(ds.Columns),
        "samples": elements.integer(ds, "SamplesPerPixel") or 1,
        "photometric": str(ds.get("PhotometricInterpretation", "MONOCHROME2")),
        "bits_stored": elements.integer(ds, "BitsStored")
        or elements.integer(ds, "BitsAllocated")
        or 16,
        "signed": bool(elements.integer(ds, "PixelRepresentation")),
        "image_type": elements.texts(ds, "ImageType"),
        "frame_of_reference_uid": str(ds.get("FrameOfReferenceUID") or ""),
        "padding": _padding(ds),
        "acquisition_time": str(ds.get("AcquisitionTime") or ""),
        "acquisition_number": elements.integer(ds, "AcquisitionNumber"),
        "instance_number": elements.integer(ds, "InstanceNumber") or 0,
        "lossy": str(ds.get("LossyImageCompression") or "") == "01",
        "burned_in": str(ds.get("BurnedInAnnotation") or "").upper() == "YES",
    }


def _classic(ds: Dataset) -> dict[str, Any]:
    intercept = elements.number(ds, "RescaleIntercept")
    return {
        "position": elements.numbers(ds, "ImagePositionPatient", 3),
        "orientation": elements.numbers(ds, "ImageOrientationPatient", 6),
        "pixel_spacing": elements.numbers(ds, "PixelSpacing", 2),
        "slope": elements.number(ds, "RescaleSlope") or 1.0,
        "intercept": 0.0 if intercept is None else intercept,
        "has_rescale": intercept is not None,
        "has_modality_lut": bool(ds.get("ModalityLUTSequence")),
        "b_value": diffusion.b_value(ds),
        "echo_time": elements.number(ds, "EchoTime"),
        "temporal_position": elements.integer(ds, "TemporalPositionIdentifier"),
        "trigger_time": elements.number(ds, "TriggerTime"),
    }


def _padding(ds: Dataset) -> tuple[int, int] | None:
    value = elements.integer(ds, "PixelPaddingValue")
    if value is None:
        return None
    limit = elements.integer(ds, "PixelPaddingRangeLimit")
    other = value if limit is None else limit
    return min(value, other), max(value, other)

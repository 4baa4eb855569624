"""Small DICOM builders for tests: head CT and MR series with good defaults, valid for dciodvfy.

Geometry is given the way the volumes package gives it back: arrays are [K, R, C], spacing is
(between slices, between rows, between columns) in mm, positions are DICOM patient LPS in mm.
Every UID is 2.25 + a hash of what identifies the object, so two runs write the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

Triple = tuple[float, float, float]
Field = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Maps LPS points [..., 3] in mm to stored physical values (HU or MR intensity)."""

PLANES: dict[str, tuple[Triple, Triple]] = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "oblique": (
        (math.cos(0.3), math.sin(0.3), 0.0),
        (-math.sin(0.3) * math.cos(0.2), math.cos(0.3) * math.cos(0.2), math.sin(0.2)),
    ),
}
"""Row and column direction cosines (ImageOrientationPatient) by name."""


def uid(*parts: object) -> str:
    """Return a deterministic 2.25 UID for what `parts` name."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def head(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A head in HU around (0, 0, 0): air, a 5 mm skull, brain, ventricles."""
    radius = np.sqrt(
        (points[..., 0] / 70) ** 2 + (points[..., 1] / 85) ** 2 + (points[..., 2] / 75) ** 2
    )
    hu = np.full(radius.shape, -1000.0)
    hu[radius < 1.0] = 900.0
    hu[radius < 0.93] = 35.0
    hu[np.linalg.norm(points / np.array([12, 25, 12]), axis=-1) < 1] = 8.0
    return hu


def mr_head(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same head with T1-like intensities: dark air and CSF, bright scalp, mid-gray brain."""
    hu = head(points)
    smooth = 20 * np.cos(points[..., 0] / 9) * np.cos(points[..., 1] / 11)
    return np.select([hu < -500, hu > 500, hu < 10], [3.0, 600.0, 120.0], 400.0 + smooth)


def ball(center: Sequence[float], radius_mm: float, value: float, base: Field = head) -> Field:
    """A field with a ball of `value` at `center` (LPS, mm) put into `base`."""

    def field(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        inside = np.linalg.norm(points - np.asarray(center), axis=-1) < radius_mm
        return np.where(inside, value, base(points))

    return field


def ct_series(
    n: int = 24,
    rows: int = 64,
    cols: int = 64,
    spacing: Triple = (5.0, 3.0, 3.0),
    study_uid: str | None = None,
    **options: Any,
) -> list[Dataset]:
    """Return a head CT series, in order along the normal; see `series` for the options."""
    return series("CT", n, rows, cols, spacing=spacing, study_uid=study_uid, **options)


def mr_series(
    n: int = 24,
    rows: int = 64,
    cols: int = 64,
    spacing: Triple = (5.0, 3.0, 3.0),
    study_uid: str | None = None,
    **options: Any,
) -> list[Dataset]:
    """Return a head MR series (T1-like), in order along the normal; see `series`."""
    return series("MR", n, rows, cols, spacing=spacing, study_uid=study_uid, **options)


def series(
    modality: str,
    n: int,
    rows: int,
    cols: int,
    *,
    spacing: Triple = (5.0, 3.0, 3.0),
    study_uid: str | None = None,
    key: str = "1",
    plane: str | Sequence[float] = "axial",
    tilt_deg: float = 0.0,
    center: Triple = (0.0, 0.0, 0.0),
    pixels: npt.NDArray[Any] | Field | None = None,
    slope: float = 1.0,
    intercept: float | None = None,
    signed: bool | None = None,
    patient: str = "1",
    **tags: Any,
) -> list[Dataset]:
    """Build one single-frame series.

    Args:
        modality: CT or MR.
        n: number of slices.
        rows: rows of a slice.
        cols: columns of a slice.
        spacing: between slices, rows, columns in mm.
        study_uid: StudyInstanceUID; default one per modality and patient.
        key: tells several series of a study apart (goes into the series UID).
        plane: name in `PLANES` or six direction cosines.
        tilt_deg: gantry tilt: every next slice is displaced along the column direction.
        center: LPS position of the middle of the volume.
        pixels: array [n, rows, cols] of physical values, or a field over LPS points.
        slope: rescale slope.
        intercept: rescale intercept; default -1024 for CT, 0 for MR.
        signed: PixelRepresentation; default unsigned.
        patient: makes the patient's identity (ID, name, birth date).
        tags: any DICOM keyword, set on every dataset last; None deletes it.
    """
    study = study_uid or uid("study", modality, patient)
    intercept = intercept if intercept is not None else (-1024.0 if modality == "CT" else 0.0)
    affine = series_affine(n, rows, cols, spacing, plane=plane, tilt_deg=tilt_deg, center=center)
    if pixels is None:
        pixels = head if modality == "CT" else mr_head
    values = pixels(voxel_positions(affine, (n, rows, cols))) if callable(pixels) else pixels
    stored = np.rint((np.asarray(values, dtype=np.float64) - intercept) / slope)
    dtype = np.dtype("<i2" if signed else "<u2")
    stored = np.clip(stored, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
    result = []
    for k in range(n):
        ds = _frame(modality, study, key, patient, k)
        _set_plane(ds, affine, k, spacing)
        set_pixels(ds, stored[k])
        if modality == "CT":
            ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = intercept, slope, "HU"
            if tilt_deg:
                ds.GantryDetectorTilt = tilt_deg
        elif (slope, intercept) != (1.0, 0.0):
            ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = intercept, slope, "US"
        set_tags(ds, tags)
        result.append(ds)
    return result


def series_affine(
    n: int,
    rows: int,
    cols: int,
    spacing: Triple,
    *,
    plane: str | Sequence[float] = "axial",
    tilt_deg: float = 0.0,
    center: Triple = (0.0, 0.0, 0.0),
) -> npt.NDArray[np.float64]:
    """The true (k, r, c, 1) -> LPS matrix of a series built with the same arguments."""
    row_dir, col_dir = PLANES[plane] if isinstance(plane, str) else (plane[:3], plane[3:])
    along_c = np.asarray(row_dir, dtype=np.float64)
    along_r = np.asarray(col_dir, dtype=np.float64)
    normal = np.cross(along_c, along_r)
    affine = np.eye(4)
    affine[:3, 0] = normal * spacing[0] + along_r * spacing[0] * math.tan(math.radians(tilt_deg))
    affine[:3, 1] = along_r * spacing[1]
    affine[:3, 2] = along_c * spacing[2]
    middle = (np.array([n, rows, cols]) - 1) / 2
    affine[:3, 3] = np.asarray(center) - affine[:3, :3] @ middle
    return affine


def voxel_positions(
    affine: npt.NDArray[np.float64], shape: tuple[int, int, int]
) -> npt.NDArray[np.float64]:
    """LPS position of every voxel center: [K, R, C, 3]."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    positions: npt.NDArray[np.float64] = index @ affine[:3, :3].T + affine[:3, 3]
    return positions


def set_pixels(ds: Dataset, stored: npt.NDArray[Any]) -> None:
    """Set uncompressed 16-bit grayscale pixel data of one frame and what describes it."""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    ds.PixelData = np.ascontiguousarray(stored).tobytes()
    ds["PixelData"].VR = "OW"


def set_tags(ds: Dataset, tags: dict[str, Any]) -> None:
    """Set DICOM keywords on a dataset; None deletes the element."""
    for keyword, value in tags.items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)


def save(ds: Dataset, path: Path) -> Path:
    """Write one dataset as a Part-10 file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def save_all(datasets: Sequence[Dataset], folder: Path) -> tuple[Path, ...]:
    """Write a series into a folder, file names by instance UID."""
    return tuple(save(ds, folder / f"{ds.SOPInstanceUID}.dcm") for ds in datasets)


def study_dir(path: Path, *series_list: Sequence[Dataset]) -> Path:
    """Write a study (default: one CT series) as path/<series>/<instance>.dcm; return path."""
    for datasets in series_list or (ct_series(),):
        save_all(datasets, path / str(datasets[0].SeriesInstanceUID))
    return path


def new_meta(sop_class: str, sop_uid: str, syntax: str = ExplicitVRLittleEndian) -> FileMetaDataset:
    """File meta information of a dataset as written by the tests."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(sop_uid)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(uid("tests"))
    return meta


def common_modules(ds: Dataset, modality: str, study: str, key: str, patient: str) -> None:
    """Patient, study, series, frame of reference and equipment modules, complete."""
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientID, ds.PatientName = f"PAT{patient}", f"Test^Patient{patient}"
    ds.PatientBirthDate, ds.PatientSex = "19600101", "O"
    ds.StudyInstanceUID, ds.StudyID = study, "1"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20261101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "083000"
    ds.AccessionNumber = f"ACC{patient}"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = f"{modality} HEAD"
    ds.Modality = modality
    ds.SeriesInstanceUID = uid(study, modality, key)
    ds.SeriesNumber = int(key) if key.isdigit() else 1
    ds.SeriesDescription = "AXIAL HEAD" if modality == "CT" else "T1 AXIAL"
    ds.ProtocolName = "HEAD"
    ds.BodyPartExamined = "HEAD"
    ds.PatientPosition = "HFS"
    ds.FrameOfReferenceUID = uid(study, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.Manufacturer, ds.ManufacturerModelName = "Example", "Phantom"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    ds.StationName = "SCANNER1"


def _frame(modality: str, study: str, key: str, patient: str, k: int) -> Dataset:
    sop_class = CTImageStorage if modality == "CT" else MRImageStorage
    ds = Dataset()
    common_modules(ds, modality, study, key, patient)
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = uid(study, modality, key, k)
    ds.file_meta = new_meta(sop_class, ds.SOPInstanceUID)
    ds.InstanceNumber, ds.AcquisitionNumber = k + 1, 1
    if modality == "CT":
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.KVP, ds.WindowCenter, ds.WindowWidth = 120, 40, 80
        return ds
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE"]
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "SE", "SK", ""
    ds.MRAcquisitionType, ds.RepetitionTime, ds.EchoTime = "2D", 500, 12
    ds.EchoTrainLength, ds.MagneticFieldStrength = 1, 1.5
    return ds


def _set_plane(ds: Dataset, affine: npt.NDArray[np.float64], k: int, spacing: Triple) -> None:
    position = affine[:3, 3] + affine[:3, 0] * k
    directions = [*(affine[:3, 2] / spacing[2]), *(affine[:3, 1] / spacing[1])]
    ds.ImagePositionPatient = [_ds(v) for v in position]
    ds.ImageOrientationPatient = [_ds(v) for v in directions]
    ds.PixelSpacing = [_ds(spacing[1]), _ds(spacing[2])]
    ds.SliceThickness = _ds(spacing[0])
    ds.SpacingBetweenSlices = _ds(spacing[0])
    if ds.Modality == "CT":
        del ds.SpacingBetweenSlices  # not in the CT Image IOD


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters."""
    return f"{value + 0.0:.8f}".rstrip("0").rstrip(".")[:16]

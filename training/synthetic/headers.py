"""Header elements of synthetic images: patient, order, scanner, acquisition, identifiers."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from training.synthetic.study import SyntheticSeries, SyntheticStudy

RESCALE_INTERCEPT = -1024
FIRST_SERIES = 2
"""Series number of the first image series; the localizer is number 1."""
# Repetition, echo, inversion time in ms, flip angle, scanning sequence, variant.
_MR_TIMING: dict[str, tuple[float, float, float | None, float, str, str]] = {
    "T1": (550.0, 12.0, None, 90.0, "SE", "SP"),
    "T2": (4500.0, 98.0, None, 150.0, "SE", "SK"),
    "FLAIR": (9000.0, 90.0, 2500.0, 150.0, "IR", "SK"),
    "DWI": (5200.0, 84.0, None, 90.0, "EP", "SK"),
}


@dataclass(frozen=True)
class StudyTags:
    """What a hospital writes around the pixels. Everything has a harmless default.

    Attributes:
        location: CurrentPatientLocation (0038,0300), e.g. ``ED``.
        ordered_priority: RequestedProcedurePriority (0040,1003), e.g. ``STAT``.
    """

    patient_name: str = "Demo^Patient"
    patient_id: str = "DEMO0001"
    birth_date: dt.date = dt.date(1960, 1, 1)
    sex: str = "O"
    accession_number: str = "SYN0001"
    started: dt.datetime = dt.datetime(2026, 1, 5, 8, 0, tzinfo=dt.UTC)
    description: str = ""
    station: str = ""
    institution: str = "Synthetic Hospital"
    department: str = "Radiology"
    location: str = ""
    ordered_priority: str = "ROUTINE"


@dataclass(frozen=True)
class Origin:
    """What every instance of one written study has in common."""

    study: SyntheticStudy
    tags: StudyTags

    def uid(self, *parts: object) -> str:
        """A 2.25 UID that follows from seed, modality, accession number and `parts`."""
        named = (self.study.seed, self.study.modality, self.tags.accession_number, *parts)
        digest = hashlib.sha256("/".join(map(str, named)).encode()).digest()
        return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def study_uid(study: SyntheticStudy, tags: StudyTags) -> str:
    """StudyInstanceUID that `write_dicom` gives the study."""
    return Origin(study, tags).uid("study")


def series_uids(study: SyntheticStudy, tags: StudyTags) -> tuple[str, ...]:
    """SeriesInstanceUID of each of the study's series, in their order."""
    origin = Origin(study, tags)
    return tuple(
        origin.uid("series", number)
        for number in range(FIRST_SERIES, len(study.series) + FIRST_SERIES)
    )


def common_elements(origin: Origin, number: int, description: str) -> Dataset:
    """Patient, study, series, equipment and frame of reference modules."""
    study, tags = origin.study, origin.tags
    is_ct = study.modality == "CT"
    begun = tags.started + dt.timedelta(minutes=2 * min(number, 20))
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyDate, dataset.StudyTime = _date(tags.started), _time(tags.started)
    dataset.SeriesDate, dataset.SeriesTime = _date(begun), _time(begun)
    dataset.AcquisitionDate = dataset.ContentDate = _date(begun)
    dataset.AcquisitionTime = dataset.ContentTime = _time(begun)
    dataset.AccessionNumber = tags.accession_number
    dataset.Modality = study.modality
    dataset.Manufacturer = "Synthetic"
    dataset.ManufacturerModelName = "Phantom CT" if is_ct else "Phantom MR 1.5T"
    dataset.DeviceSerialNumber = "0001"
    dataset.SoftwareVersions = "1"
    dataset.InstitutionName = tags.institution
    dataset.InstitutionalDepartmentName = tags.department
    dataset.StationName = tags.station or ("CT01" if is_ct else "MR01")
    dataset.StudyDescription = tags.description or ("CT HEAD WO CONTRAST" if is_ct else "MR BRAIN")
    dataset.SeriesDescription = description
    dataset.ReferringPhysicianName = "Referrer^Demo"
    dataset.PatientName = tags.patient_name
    dataset.PatientID = tags.patient_id
    dataset.PatientBirthDate = _date(tags.birth_date)
    dataset.PatientSex = tags.sex
    dataset.PatientAge = f"{min(999, (tags.started.date() - tags.birth_date).days // 365):03d}Y"
    dataset.BodyPartExamined = "HEAD" if is_ct else "BRAIN"
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID = origin.uid("study")
    dataset.SeriesInstanceUID = origin.uid("series", number)
    dataset.StudyID = tags.accession_number[-16:]
    dataset.SeriesNumber = str(number)
    dataset.AcquisitionNumber = "1"
    dataset.FrameOfReferenceUID = origin.uid("frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.CurrentPatientLocation = tags.location
    dataset.RequestedProcedurePriority = tags.ordered_priority
    return dataset


def ct_elements() -> Dataset:
    """CT Image module, as far as it is the same for every slice."""
    dataset = Dataset()
    dataset.KVP = "120"
    dataset.XRayTubeCurrent = "280"
    dataset.ExposureTime = "1000"
    dataset.ConvolutionKernel = "H31s"
    dataset.GantryDetectorTilt = "0"
    dataset.RescaleIntercept = str(RESCALE_INTERCEPT)
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = "40", "80"
    return dataset


def mr_elements(series: SyntheticSeries) -> Dataset:
    """MR Image module of one sequence."""
    repetition, echo, inversion, flip, sequence, variant = _MR_TIMING[series.contrast]
    dataset = Dataset()
    dataset.ScanningSequence = sequence
    dataset.SequenceVariant = variant
    dataset.ScanOptions = ""
    dataset.MRAcquisitionType = "2D"
    dataset.RepetitionTime, dataset.EchoTime = str(repetition), str(echo)
    if inversion is not None:
        dataset.InversionTime = str(inversion)
    dataset.EchoTrainLength = "1"
    dataset.FlipAngle = str(flip)
    dataset.MagneticFieldStrength = "1.5"
    high = float(np.percentile(series.array[:: max(1, len(series.array) // 4)], 99.5))
    dataset.WindowCenter, dataset.WindowWidth = str(round(high / 2)), str(max(1, round(high)))
    return dataset


def decimal(value: float | np.floating[Any]) -> str:
    """A decimal string of at most 16 characters (PS3.5 section 6.2)."""
    return f"{value:.6f}"[:16].rstrip("0").rstrip(".") or "0"


def _date(value: dt.date) -> str:
    return value.strftime("%Y%m%d")


def _time(value: dt.datetime) -> str:
    return value.strftime("%H%M%S")

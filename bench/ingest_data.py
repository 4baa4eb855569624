"""Synthetic studies to send: the same bytes every time, no patient, nothing downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

SIZES = {"CT": 512, "MR": 256}
CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage}
MULTIFRAME_FRAMES = 800


def make_set(folder: Path, modality: str, associations: int, images: int) -> list[Path]:
    """Write `images` files in `associations` folders, one study each; return the folders."""
    folders = []
    rng = np.random.default_rng(7)
    size = SIZES[modality]
    noise = rng.integers(0, 2048, (size, size)).astype("<u2")
    for part in range(associations):
        target = folder / f"{modality}{associations}-{part}"
        target.mkdir(parents=True)
        share = images // associations + (part < images % associations)
        for number in range(share):
            ds = image(modality, f"{folder.name}/{associations}/{part}", number)
            ds.PixelData = np.roll(noise, number * 31).tobytes()
            ds.save_as(target / f"{number:04d}.dcm", enforce_file_format=True)
        folders.append(target)
    return folders


def make_multiframe(folder: Path) -> Path:
    """Write one enhanced multi-frame of 419 MB and return its folder."""
    target = folder / "multiframe"
    target.mkdir(parents=True)
    ds = image("CT", "multiframe", 0)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.NumberOfFrames = MULTIFRAME_FRAMES
    frame = np.random.default_rng(7).integers(0, 2048, (512, 512)).astype("<u2").tobytes()
    ds.PixelData = frame * MULTIFRAME_FRAMES
    ds.save_as(target / "0000.dcm", enforce_file_format=True)
    return target


def image(modality: str, study: str, number: int) -> Dataset:
    """One image with about ninety elements and three sequences, as scanners write them."""
    size = SIZES[modality]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = _uid("bench")
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CLASSES[modality]
    uid = _uid(study, modality, number)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(study), _uid(study, modality)
    ds.FrameOfReferenceUID = _uid(study, "frame of reference")
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PatientName, ds.PatientID = f"Bench^{study}", study[-16:]
    ds.AccessionNumber, ds.StudyID, ds.Modality = study[-16:], "1", modality
    ds.StudyDescription, ds.SeriesDescription = f"{modality} HEAD", "AXIAL 5 MM"
    ds.InstanceNumber, ds.SeriesNumber, ds.AcquisitionNumber = number + 1, 1, 1
    for name in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, f"{name}Date", "20261123")
        setattr(ds, f"{name}Time", "083000")
    for keyword in _TEXTS:
        setattr(ds, keyword, "BENCH")
    for keyword in _NUMBERS:
        setattr(ds, keyword, "1")
    for keyword in ("ReferencedStudySequence", "ReferencedImageSequence", "ProcedureCodeSequence"):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, _uid(keyword)
        setattr(ds, keyword, Sequence([item]))
    ds.add_new(0x00091001, "UN", bytes(2000))
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [0, 0, number]
    ds.PixelSpacing = ["0.5", "0.5"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = size
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    return ds


def _uid(*parts: object) -> UID:
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:15], 'big')}")


_TEXTS = """
    Manufacturer ManufacturerModelName InstitutionName InstitutionAddress StationName
    InstitutionalDepartmentName ReferringPhysicianName OperatorsName PerformingPhysicianName
    ProtocolName SoftwareVersions DeviceSerialNumber BodyPartExamined FilterType
    ConvolutionKernel PositionReferenceIndicator ImageComments PatientComments AdmissionID
    RequestingService RequestedProcedureDescription PerformedProcedureStepID
    PerformedProcedureStepDescription CurrentPatientLocation EthnicGroup Occupation
""".split()  # noqa: SIM905 - a block of keywords reads better than a list of strings
_NUMBERS = """
    SliceThickness KVP DataCollectionDiameter ReconstructionDiameter
    DistanceSourceToDetector DistanceSourceToPatient GantryDetectorTilt TableHeight
    ExposureTime XRayTubeCurrent Exposure GeneratorPower FocalSpots SliceLocation
    WindowCenter WindowWidth RescaleIntercept RescaleSlope PatientWeight PatientSize
""".split()  # noqa: SIM905

"""Turn a classic series of the factories into one enhanced multi-frame instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from factories import dicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage

MOVED = (
    "ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness InstanceNumber "
    "SpacingBetweenSlices AcquisitionNumber KVP WindowCenter WindowWidth RescaleIntercept "
    "RescaleSlope RescaleType EchoTime RepetitionTime EchoTrainLength ScanningSequence "
    "SequenceVariant ScanOptions MRAcquisitionType MagneticFieldStrength GantryDetectorTilt "
    "ReferringPhysicianName AcquisitionDate AcquisitionTime"
)


def enhanced(datasets: Sequence[Dataset], *, shared_rescale: bool = True) -> Dataset:
    """One multi-frame instance with the frames of `datasets` in the order given.

    Args:
        datasets: a classic CT or MR series.
        shared_rescale: whether the rescale stands in the shared group or in every frame's.
    """
    first = datasets[0]
    sop_class = EnhancedCTImageStorage if first.Modality == "CT" else EnhancedMRImageStorage
    ds = Dataset()
    ds.update(first)
    for keyword in (*MOVED.split(), "PixelData"):
        if keyword in ds:
            delattr(ds, keyword)
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = dicom.uid(first.SeriesInstanceUID, "enhanced")
    ds.file_meta = dicom.new_meta(sop_class, ds.SOPInstanceUID)
    _image_level(ds, first)
    ds.NumberOfFrames = len(datasets)
    ds.SharedFunctionalGroupsSequence = [_shared(first, shared_rescale)]
    ds.PerFrameFunctionalGroupsSequence = [
        _frame_group(source, n, shared_rescale) for n, source in enumerate(datasets)
    ]
    ds.PixelData = b"".join(source.PixelData for source in datasets)
    ds["PixelData"].VR = "OW"
    return ds


def _image_level(ds: Dataset, first: Dataset) -> None:
    ds.ReferringPhysicianName = ""
    ds.InstanceNumber = 1
    ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    ds.PixelPresentation, ds.VolumetricProperties = "MONOCHROME", "VOLUME"
    ds.VolumeBasedCalculationTechnique = "NONE"
    ds.AcquisitionDateTime, ds.AcquisitionDuration = "20261101083000", 10.0
    ds.ContentQualification, ds.BurnedInAnnotation = "RESEARCH", "NO"
    ds.LossyImageCompression, ds.PresentationLUTShape = "00", "IDENTITY"
    ds.AcquisitionContextSequence = DicomSequence()
    organization = Dataset()
    organization.DimensionOrganizationUID = dicom.uid(ds.SOPInstanceUID, "dimensions")
    ds.DimensionOrganizationSequence = [organization]
    ds.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization.DimensionOrganizationUID,
            DimensionIndexPointer=0x00209057,
            FunctionalGroupPointer=0x00209111,
        )
    ]
    if first.Modality == "MR":
        ds.ComplexImageComponent, ds.AcquisitionContrast = "MAGNITUDE", "T1"
        ds.MagneticFieldStrength, ds.ResonantNucleus = 1.5, "1H"
        ds.KSpaceFiltering, ds.ApplicableSafetyStandardAgency = "NONE", "IEC"


def _shared(first: Dataset, shared_rescale: bool) -> Dataset:
    group = Dataset()
    measures = _item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)
    group.PixelMeasuresSequence = [measures]
    group.PlaneOrientationSequence = [_item(ImageOrientationPatient=first.ImageOrientationPatient)]
    anatomy = _item(CodeValue="12738006", CodingSchemeDesignator="SCT", CodeMeaning="Brain")
    group.FrameAnatomySequence = [_item(FrameLaterality="U", AnatomicRegionSequence=[anatomy])]
    group.FrameVOILUTSequence = [_item(WindowCenter=40, WindowWidth=80)]
    if shared_rescale:
        group.PixelValueTransformationSequence = [_rescale(first)]
    frame_type = _item(
        FrameType=["DERIVED", "PRIMARY", "VOLUME", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    if first.Modality == "CT":
        group.CTImageFrameTypeSequence = [frame_type]
        event = _item(IrradiationEventUID=dicom.uid(first.SeriesInstanceUID, "event"))
        group.IrradiationEventIdentificationSequence = [event]
    else:
        frame_type.ComplexImageComponent, frame_type.AcquisitionContrast = "MAGNITUDE", "T1"
        group.MRImageFrameTypeSequence = [frame_type]
    return group


def _frame_group(source: Dataset, n: int, shared_rescale: bool) -> Dataset:
    group = Dataset()
    content = _item(
        FrameAcquisitionDateTime="20261101083000",
        FrameReferenceDateTime="20261101083000",
        FrameAcquisitionDuration=10.0,
        FrameAcquisitionNumber=int(source.get("AcquisitionNumber") or 1),
        StackID="1",
        InStackPositionNumber=n + 1,
        DimensionIndexValues=[n + 1],
    )
    if "TemporalPositionIdentifier" in source:
        content.TemporalPositionIndex = int(source.TemporalPositionIdentifier)
    group.FrameContentSequence = [content]
    group.PlanePositionSequence = [_item(ImagePositionPatient=source.ImagePositionPatient)]
    if not shared_rescale:
        group.PixelValueTransformationSequence = [_rescale(source)]
    if source.Modality == "MR":
        group.MREchoSequence = [_item(EffectiveEchoTime=float(source.EchoTime))]
        if "DiffusionBValue" in source:
            group.MRDiffusionSequence = [
                _item(DiffusionBValue=source.DiffusionBValue, DiffusionDirectionality="ISOTROPIC")
            ]
    return group


def _rescale(source: Dataset) -> Dataset:
    return _item(
        RescaleIntercept=source.get("RescaleIntercept", 0),
        RescaleSlope=source.get("RescaleSlope", 1),
        RescaleType="HU" if source.Modality == "CT" else "US",
    )


def _item(**elements: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value if not isinstance(value, np.generic) else value.item())
    return ds

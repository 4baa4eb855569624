"""Read the functional groups of an enhanced multi-frame image: shared and per frame.

PS3.3 C.7.6.16: a macro is either shared by all frames or stands in each frame's item.
"""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

from inference.volumes import elements

FRAME_TYPE_MACROS = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence")


def read(ds: Dataset) -> list[dict[str, Any]]:
    """The fields of `FrameHeader` that functional groups hold, for every frame in order."""
    shared_items = ds.get("SharedFunctionalGroupsSequence") or [Dataset()]
    top_type = elements.texts(ds, "ImageType")
    return [
        _fields(item, shared_items[0], top_type) for item in ds.PerFrameFunctionalGroupsSequence
    ]


def _fields(item: Dataset, shared: Dataset, top_type: tuple[str, ...]) -> dict[str, Any]:
    def macro(keyword: str) -> Dataset:
        for group in (item, shared):
            sequence = group.get(keyword)
            if sequence:
                return Dataset(sequence[0])
        return Dataset()

    content = macro("FrameContentSequence")
    transformation = macro("PixelValueTransformationSequence")
    frame_types = [elements.texts(macro(keyword), "FrameType") for keyword in FRAME_TYPE_MACROS]
    intercept = elements.number(transformation, "RescaleIntercept")
    fields = {
        "position": elements.numbers(macro("PlanePositionSequence"), "ImagePositionPatient", 3),
        "orientation": elements.numbers(
            macro("PlaneOrientationSequence"), "ImageOrientationPatient", 6
        ),
        "pixel_spacing": elements.numbers(macro("PixelMeasuresSequence"), "PixelSpacing", 2),
        "slope": elements.number(transformation, "RescaleSlope") or 1.0,
        "intercept": 0.0 if intercept is None else intercept,
        "has_rescale": intercept is not None,
        "image_type": next((t for t in frame_types if t), top_type),
        "b_value": elements.number(macro("MRDiffusionSequence"), "DiffusionBValue"),
        "echo_time": elements.number(macro("MREchoSequence"), "EffectiveEchoTime"),
        "temporal_position": elements.integer(content, "TemporalPositionIndex"),
        "acquisition_time": str(content.get("FrameAcquisitionDateTime") or ""),
        "trigger_time": elements.number(
            macro("CardiacSynchronizationSequence"), "NominalCardiacTriggerDelayTime"
        ),
    }
    number = elements.integer(content, "FrameAcquisitionNumber")
    if number is not None:
        fields["acquisition_number"] = number
    return fields

"""Segmentations lie where the model looked, on the frames it looked at."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from factories import dicom, result_cases, results
from pydicom.dataset import Dataset

from agent.results import compose
from agent.results.context import ComposedObject, ResultContext

HALF_TOKEN_MM = 4.0


def segmentations(context: ResultContext) -> list[ComposedObject]:
    """The segmentations of a context."""
    return [made for made in compose.compose(context, ["seg"]) if made.kind == "seg"]


def center_of_mass(ds: Dataset) -> npt.NDArray[np.float64]:
    """Mean LPS position of the masked pixels, from the object's own geometry alone."""
    shared = ds.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    points = []
    for frame, mask in zip(ds.PerFrameFunctionalGroupsSequence, frames(ds), strict=True):
        origin = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(mask)
        along = (
            columns[:, None] * cosines[:3] * spacing[1] + rows[:, None] * cosines[3:] * spacing[0]
        )
        points.append(origin + along)
    center: npt.NDArray[np.float64] = np.concatenate(points).mean(axis=0)
    return center


def frames(ds: Dataset) -> npt.NDArray[np.uint8]:
    """Masks [K, R, C], also of a segmentation with one frame."""
    return ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)


@pytest.mark.parametrize("case", result_cases.LOCATED)
def test_the_mask_lies_where_the_token_was(case: str, tmp_path: Path):
    """Center of mass in patient coordinates, within half a token, in every geometry."""
    (made,) = segmentations(result_cases.CASES[case](tmp_path))

    assert np.abs(center_of_mass(made.dataset) - results.TARGET_MM).max() < HALF_TOKEN_MM


@pytest.mark.parametrize("case", ["axial_ct", "tilted_ct", "oblique_mr"])
def test_every_frame_lies_on_its_source_image(case: str, tmp_path: Path):
    """Position, matrix and reference of each frame are those of one source instance."""
    context = result_cases.CASES[case](tmp_path)
    sources = {path.stem: dicom_header(path) for path in context.sources[0].files}
    ds = segmentations(context)[0].dataset

    for frame in ds.PerFrameFunctionalGroupsSequence:
        (ref,) = frame.DerivationImageSequence[0].SourceImageSequence
        source = sources[ref.ReferencedSOPInstanceUID]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == source.ImagePositionPatient
        assert (ds.Rows, ds.Columns) == (source.Rows, source.Columns)
        assert ref.ReferencedSOPClassUID == source.SOPClassUID
        assert "ReferencedFrameNumber" not in ref
    (series,) = ds.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == context.sources[0].series_uid
    assert len(series.ReferencedInstanceSequence) == len(ds.PerFrameFunctionalGroupsSequence)


def dicom_header(path: Path) -> Dataset:
    """Header of a source file."""
    return pydicom.dcmread(path, stop_before_pixels=True)


def test_frames_of_a_multi_frame_source_are_referenced_by_number(tmp_path: Path):
    """The stand-ins that place the frames leave no trace in the references."""
    context = result_cases.enhanced_ct(tmp_path)
    source = dicom_header(context.sources[0].files[0])
    ds = segmentations(context)[0].dataset

    for frame in ds.PerFrameFunctionalGroupsSequence:
        (ref,) = frame.DerivationImageSequence[0].SourceImageSequence
        number = int(ref.ReferencedFrameNumber)
        group = source.PerFrameFunctionalGroupsSequence[number - 1]
        assert ref.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert ref.ReferencedSOPClassUID == source.SOPClassUID
        assert (
            frame.PlanePositionSequence[0].ImagePositionPatient
            == group.PlanePositionSequence[0].ImagePositionPatient
        )
    (instance,) = ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert instance.ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_highdicom_finds_the_mask_on_the_source_images(tmp_path: Path):
    """Read back through the source instances, the mask has the same voxels."""
    context = result_cases.axial_ct(tmp_path)
    (path,) = compose.write(segmentations(context), tmp_path / "out")
    seg = hd.seg.segread(path)
    uids = [path.stem for path in context.sources[0].files]

    by_source = seg.get_pixels_by_source_instance(
        uids, segment_numbers=[1], assert_missing_frames_are_empty=True
    )

    assert int(by_source.sum()) == int(frames(seg).sum()) > 0


def test_a_missing_slice_shifts_nothing(tmp_path: Path):
    """Around a gap in the series the mask's frames stay on their own images."""
    datasets = dicom.ct_series()
    context = results.positive(
        datasets[:14] + datasets[15:], tmp_path, ground={"key_index": 10, "sigma_mm": 14.0}
    )
    ds = segmentations(context)[0].dataset

    by_uid = {d.SOPInstanceUID: d.ImagePositionPatient for d in datasets}
    shown = {}
    for frame in ds.PerFrameFunctionalGroupsSequence:
        (ref,) = frame.DerivationImageSequence[0].SourceImageSequence
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        shown[ref.ReferencedSOPInstanceUID] = position
    assert shown == {uid: by_uid[uid] for uid in shown}
    assert datasets[14].SOPInstanceUID not in shown
    assert {datasets[13].SOPInstanceUID, datasets[15].SOPInstanceUID} <= set(shown)


def test_frames_have_the_thickness_of_the_series_they_lie_on(tmp_path: Path):
    """In a study of several series, measures come from the one the finding was seen in."""
    thin = results.source(dicom.mr_series(n=6, key="1", spacing=(1.0, 3.0, 3.0)), tmp_path)
    thick = dicom.mr_series(key="2", SliceThickness="4.5")
    context = results.positive(thick, tmp_path)
    report = results.report(thin)
    both = dataclasses.replace(
        context,
        sources=(thin, *context.sources),
        findings=dataclasses.replace(context.findings, series=(report, *context.findings.series)),
    )

    measures = segmentations(both)[0].dataset.SharedFunctionalGroupsSequence[0]

    assert measures.PixelMeasuresSequence[0].SliceThickness == 4.5
    assert measures.PixelMeasuresSequence[0].SpacingBetweenSlices == 5.0


def test_each_finding_has_a_segmentation_and_series_of_its_own(context: ResultContext):
    """Viewers load them one by one, and nothing is overwritten."""
    first = context.findings.findings[0]
    second = dataclasses.replace(first, label="mass", display="Mass", probability=0.7)
    both = dataclasses.replace(context.findings, findings=(second, first))
    made = segmentations(dataclasses.replace(context, findings=both))

    assert [m.label for m in made] == ["hemorrhage", "mass"]
    assert [m.dataset.SeriesNumber for m in made] == [9100, 9101]
    assert len({m.series_uid for m in made} | {m.sop_uid for m in made}) == 4


def test_the_segment_says_what_it_is(context: ResultContext):
    """Attention of a named model, not a measured lesion."""
    (segment,) = segmentations(context)[0].dataset.SegmentSequence

    assert segment.SegmentLabel == "Hemorrhage (AI attention)"
    assert "not a measured outline" in segment.SegmentDescription
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "50960005"
    assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "demo-head"
    assert segment.SegmentAlgorithmType == "AUTOMATIC"


def test_attention_outside_the_images_gives_no_segmentation(context: ResultContext):
    """An empty mask is not written, and the report does not refer to one."""
    grounding = context.findings.findings[0].grounding
    assert grounding is not None
    grounding.grid_to_patient[:3, 3] += 5000.0

    assert segmentations(context) == []
    assert [m.kind for m in compose.compose(context, ["seg", "sr"])] == ["sr"]


def test_no_frame_of_reference_no_segmentation(tmp_path: Path):
    """Without a frame of reference nothing can be placed in space; the report still comes."""
    context = result_cases.no_frame_of_reference(tmp_path)

    assert [m.kind for m in compose.compose(context)] == ["sr", "sc"]

"""Mixed series fall apart into stacks; what belongs together stays together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import dicom, dicom_enhanced
from pydicom.dataset import Dataset

from inference.study import SeriesInput
from inference.volumes import SeriesVolumes, read_series

SHAPE = (8, 32, 32)


def read(folder: Path, datasets: Sequence[Dataset]) -> SeriesVolumes:
    """Save and read a series."""
    files = dicom.save_all(datasets, folder)
    return read_series(SeriesInput("1.2.3", "MR", "", files))


def copies(values: Sequence[Any], keyword: str, **options: Any) -> list[Dataset]:
    """One stack for every value of a keyword, all at the same positions in one series."""
    result = []
    for n, value in enumerate(values):
        for ds in dicom.mr_series(*SHAPE, **options, **{keyword: value}):
            ds.SOPInstanceUID = dicom.uid(ds.SOPInstanceUID, keyword, n)
            ds.InstanceNumber = int(ds.InstanceNumber) + n * SHAPE[0]
            result.append(ds)
    return result


@pytest.mark.parametrize(
    ("keyword", "values", "label"),
    [
        ("EchoTime", [12, 90], "TE=90.0"),
        ("TemporalPositionIdentifier", [1, 2], "time point=2"),
        ("AcquisitionNumber", [1, 2], "acquisition=2"),
        ("ImageType", [["ORIGINAL", "PRIMARY", "M", "A"], ["ORIGINAL", "PRIMARY", "M", "B"]], "B"),
        ("AcquisitionTime", ["083000", "083100"], "time=083100"),
    ],
)
def test_duplicate_positions_split_by_what_differs(
    tmp_path: Path, keyword: str, values: list[Any], label: str
):
    """Two echoes, time points, acquisitions or image types are two volumes."""
    result = read(tmp_path, copies(values, keyword))
    assert [v.array.shape for v in result.volumes] == [SHAPE, SHAPE]
    assert any(label in v.label for v in result.volumes)
    assert result.warnings == ()


def test_the_highest_b_value_comes_first(tmp_path: Path):
    """A diffusion series gives its trace image before its b0."""
    result = read(tmp_path, copies([0.0, 1000.0], "DiffusionBValue"))
    assert [v.label for v in result.volumes] == ["b=1000.0", "b=0.0"]


def test_vendor_b_values_are_understood(tmp_path: Path):
    """Siemens and GE keep the b-value in private elements, GE with an offset."""
    siemens, ge = copies([1, 2], "TemporalPositionIdentifier"), []
    for ds in siemens[:8]:
        block = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0C, "IS", "1000")
    for ds in siemens[8:]:
        block = ds.private_block(0x0019, "SIEMENS MR HEADER", create=True)
        block.add_new(0x0C, "IS", "0")
    assert read(tmp_path / "s", siemens).volumes[0].label.startswith("b=1000.0")
    for n, value in enumerate(("1000000800\\8\\0\\0", "1000000000\\8\\0\\0")):
        for ds in dicom.mr_series(*SHAPE):
            ds.SOPInstanceUID = dicom.uid(ds.SOPInstanceUID, n)
            block = ds.private_block(0x0043, "GEMS_PARM_01", create=True)
            block.add_new(0x39, "IS", value.split("\\"))
            ge.append(ds)
    assert read(tmp_path / "g", ge).volumes[0].label.startswith("b=800.0")


def test_unexplained_duplicates_split_by_occurrence(tmp_path: Path):
    """When no attribute differs the first images of each position make the first volume."""
    result = read(tmp_path, copies([1, 1], "EchoTrainLength"))
    assert [v.label for v in result.volumes] == ["repetition=1", "repetition=2"]
    first = [f.sop_uid for f in result.volumes[0].frames]
    assert first == [ds.SOPInstanceUID for ds in copies([1], "EchoTrainLength")]


def test_a_step_and_shoot_ct_stays_one_volume(tmp_path: Path):
    """Acquisition numbers that change from slice to slice do not split."""
    datasets = dicom.ct_series(*SHAPE)
    for n, ds in enumerate(datasets):
        ds.AcquisitionNumber, ds.AcquisitionTime = n // 2, f"08300{n}"
    result = read(tmp_path, datasets)
    assert [v.array.shape for v in result.volumes] == [SHAPE]
    assert result.warnings == ()


def test_one_slice_taken_again_does_not_shatter_the_rest(tmp_path: Path):
    """Numbers that change with every slice explain no duplicate; the retake is left out."""
    datasets = dicom.ct_series(*SHAPE)
    again = dicom.ct_series(*SHAPE)[3]
    again.SOPInstanceUID = dicom.uid(again.SOPInstanceUID, "again")
    again.InstanceNumber = 99
    for n, ds in enumerate([*datasets, again]):
        ds.AcquisitionNumber, ds.AcquisitionTime = n + 1, f"0830{n:02d}"
    result = read(tmp_path, [*datasets, again])
    (volume,) = result.volumes
    assert volume.array.shape == SHAPE
    assert again.SOPInstanceUID not in {f.sop_uid for f in volume.frames}
    assert "1 frames outside any stack of 4 slices" in result.warnings


def test_mixed_orientations_and_sizes_are_separate_volumes(tmp_path: Path):
    """Reformats and a localizer inside the axial series do not bend it."""
    axial = dicom.mr_series(*SHAPE)
    coronal = dicom.mr_series(6, 32, 32, plane="coronal")
    larger = dicom.mr_series(5, 48, 48)
    sagittal = dicom.mr_series(2, 32, 32, plane="sagittal")
    mixed = []
    for name, part in {"a": axial, "c": coronal, "l": larger, "s": sagittal}.items():
        for ds in part:
            ds.SOPInstanceUID = dicom.uid(ds.SOPInstanceUID, name)
            mixed.append(ds)
    result = read(tmp_path, mixed)
    shapes = sorted(v.array.shape for v in result.volumes)
    assert shapes == [(5, 48, 48), (6, 32, 32), SHAPE]
    assert "2 frames outside any stack of 4 slices" in result.warnings
    by_shape = {v.array.shape: v for v in result.volumes}
    expected = dicom.series_affine(6, 32, 32, (5.0, 3.0, 3.0), plane="coronal")
    np.testing.assert_allclose(by_shape[6, 32, 32].affine, expected, atol=1e-6)


def test_a_perfusion_series_is_not_read(tmp_path: Path):
    """Dozens of repetitions are dynamics, not anatomy; nothing is decoded for them."""
    datasets = copies(range(1, 13), "TemporalPositionIdentifier")
    for ds in datasets:
        ds.PixelData = b"\0\0"
    result = read(tmp_path, datasets)
    assert result.volumes == ()
    assert result.skipped_reason == "dynamic series of 12 repetitions"


def test_diffusion_directions_are_read_once(tmp_path: Path):
    """Thirty directions of one b-value give one volume of it, beside the b0."""
    datasets = copies([1000.0] * 10 + [0.0], "DiffusionBValue")
    result = read(tmp_path, datasets)
    assert [v.label for v in result.volumes] == ["b=1000.0 repetition=1", "b=0.0"]
    assert "9 of 11 stacks not read" in result.warnings


def test_a_multiframe_of_two_time_points_splits(tmp_path: Path):
    """4D hides inside enhanced multi-frame instances as well."""
    frames = copies([1, 2], "TemporalPositionIdentifier")
    result = read(tmp_path, [dicom_enhanced.enhanced(frames)])
    assert [v.label for v in result.volumes] == ["time point=1", "time point=2"]
    assert [f.frame_number for f in result.volumes[1].frames] == list(range(9, 17))


def test_a_rotating_projection_costs_no_quadratic_time(tmp_path: Path):
    """Hundreds of directions are no volume; they are given up, not compared with each other."""
    frames = []
    for n in range(200):
        angle = n * np.pi / 200
        plane = [np.cos(angle), np.sin(angle), 0, 0, 0, -1]
        (ds,) = dicom.mr_series(1, 8, 8, plane=plane)
        ds.SOPInstanceUID = dicom.uid(ds.SOPInstanceUID, n)
        frames.append(ds)
    result = read(tmp_path, frames)
    assert result.skipped_reason == "too few parallel slices: 1, needs 4"
    assert not result.failed

"""A series from the spool becomes a geometry-true volume, or says why it does not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import dicom, dicom_compressed, dicom_enhanced
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSNearLossless

from inference.study import SeriesInput
from inference.volumes import Limits, SeriesVolumes, Volume, read_series

SHAPE = (12, 40, 48)
PLANES = ("axial", "coronal", "sagittal", "oblique")


def read(folder: Path, datasets: Sequence[Dataset], limits: Limits | None = None) -> SeriesVolumes:
    """Save a series in random order of names and read it back."""
    files = list(dicom.save_all(datasets, folder))
    random.Random(7).shuffle(files)
    modality = datasets[0].Modality if datasets else "CT"
    return read_series(SeriesInput("1.2.3", modality, "", tuple(files)), limits)


def only(result: SeriesVolumes) -> Volume:
    """The one volume of a result."""
    assert result.skipped_reason == ""
    assert len(result.volumes) == 1
    return result.volumes[0]


def small_ct(**options: Any) -> list[Dataset]:
    """A CT series of SHAPE."""
    return dicom.ct_series(*SHAPE, **options)


def truth(**options: Any) -> np.ndarray:
    """The affine of `small_ct` with these options."""
    return dicom.series_affine(*SHAPE, (5.0, 3.0, 3.0), **options)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("tilt_deg", [0.0, 17.0])
def test_voxels_keep_their_place_and_value(tmp_path: Path, plane: str, tilt_deg: float):
    """Affine, positions, spacing and HU are the scanner's, in every plane and with a tilt."""
    volume = only(read(tmp_path, small_ct(plane=plane, tilt_deg=tilt_deg, center=(4, -9, 30))))
    affine = truth(plane=plane, tilt_deg=tilt_deg, center=(4, -9, 30))
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    np.testing.assert_allclose(volume.positions_mm[-1], (affine @ [11, 0, 0, 1])[:3], atol=1e-6)
    assert volume.spacing_mm == pytest.approx((5.0, 3.0, 3.0))
    expected = dicom.head(dicom.voxel_positions(affine, SHAPE))
    np.testing.assert_array_equal(volume.array, expected)
    assert volume.array.dtype == np.int16
    assert volume.uniform
    assert volume.sheared == (tilt_deg > 0)
    assert any("gantry tilt 17.0" in w for w in volume.warnings) == (tilt_deg > 0)


def test_slices_are_sorted_by_position_not_by_number(tmp_path: Path):
    """Instance numbers that run backwards or repeat change nothing."""
    datasets = small_ct()
    for n, ds in enumerate(datasets):
        ds.InstanceNumber = 1 if n % 3 else 100 - n
    volume = only(read(tmp_path, datasets))
    assert [f.sop_uid for f in volume.frames] == [ds.SOPInstanceUID for ds in datasets]
    np.testing.assert_allclose(volume.affine, truth(), atol=1e-6)


def test_rescale_is_applied_slice_by_slice(tmp_path: Path):
    """PET-like per-slice slopes give one consistent volume."""
    datasets = dicom.mr_series(*SHAPE, slope=0.5)
    for n, ds in enumerate(datasets):
        if n % 2:
            ds.RescaleSlope, ds.RescaleIntercept = 2.0, -10
            stored = np.frombuffer(ds.PixelData, "<u2") * 0.5
            ds.PixelData = np.rint((stored + 10) / 2.0).astype("<u2").tobytes()
    volume = only(read(tmp_path, datasets))
    expected = dicom.mr_head(dicom.voxel_positions(truth(), SHAPE))
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array, expected, atol=1.26)


def test_a_missing_rescale_means_values_as_stored(tmp_path: Path):
    """MR without rescale keeps its integers."""
    volume = only(read(tmp_path, dicom.mr_series(*SHAPE)))
    assert volume.array.dtype == np.uint16
    assert volume.array.max() == 600


def test_padding_becomes_air(tmp_path: Path):
    """Pixels outside a CT's round field do not stay at -3024 (or 31743) HU."""
    hu = np.full(SHAPE, 40.0)
    hu[:, :5] = -3024
    datasets = small_ct(pixels=hu, signed=True, intercept=0.0, PixelPaddingValue=-3024)
    for ds in datasets:
        ds["PixelPaddingValue"].VR = "SS"
    volume = only(read(tmp_path, datasets))
    assert set(np.unique(volume.array)) == {-1000, 40}


def test_a_padding_range_is_masked_whole(tmp_path: Path):
    """PixelPaddingRangeLimit makes the padding a range; MR padding turns as dark as the frame."""
    values = np.full(SHAPE, 300.0)
    values[:, 0], values[:, 1], values[:, 2] = 65535, 65000, 50
    datasets = dicom.mr_series(
        *SHAPE, pixels=values, PixelPaddingValue=65535, PixelPaddingRangeLimit=65000
    )
    volume = only(read(tmp_path, datasets))
    assert set(np.unique(volume.array)) == {50, 300}


def test_signed_and_unsigned_slices_agree(tmp_path: Path):
    """Pixel representation is a slice's own affair."""
    signed = small_ct(signed=True, intercept=0.0)
    unsigned = small_ct()
    volume = only(read(tmp_path, [*signed[::2], *unsigned[1::2]]))
    expected = dicom.head(dicom.voxel_positions(truth(), SHAPE))
    np.testing.assert_array_equal(volume.array, expected)


def test_twelve_stored_bits_ignore_overlay_bits(tmp_path: Path):
    """Old scanners keep overlays in the unused high bits; they are no part of the value."""
    datasets = small_ct()
    for ds in datasets:
        ds.BitsStored, ds.HighBit = 12, 11
        stored = np.frombuffer(ds.PixelData, "<u2") | 0x8000
        ds.PixelData = stored.astype("<u2").tobytes()
    volume = only(read(tmp_path, datasets))
    assert volume.array.max() == 900


def test_inverted_mr_is_turned_back_and_ct_keeps_its_hu(tmp_path: Path):
    """MONOCHROME1 inverts MR intensities; rescaled CT is in HU whatever its display."""
    mr = dicom.mr_series(*SHAPE, PhotometricInterpretation="MONOCHROME1")
    for ds in mr:
        stored = 65535 - np.frombuffer(ds.PixelData, "<u2")
        ds.PixelData = stored.astype("<u2").tobytes()
    volume = only(read(tmp_path / "mr", mr))
    assert volume.array.max() == 600
    assert any("inverted" in w for w in volume.warnings)
    ct = only(read(tmp_path / "ct", small_ct(PhotometricInterpretation="MONOCHROME1")))
    assert ct.array.max() == 900


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("shared", [True, False])
def test_an_enhanced_multiframe_reads_like_its_single_frames(
    tmp_path: Path, modality: str, shared: bool
):
    """Functional groups, shared or per frame, give the same volume and frame numbers."""
    datasets = dicom.series(modality, *SHAPE, plane="oblique")
    single = only(read(tmp_path / "single", datasets))
    frames = [*datasets[6:], *datasets[:6]]
    multi = dicom_enhanced.enhanced(frames, shared_rescale=shared)
    volume = only(read(tmp_path / "multi", [multi]))
    np.testing.assert_array_equal(volume.array, single.array)
    np.testing.assert_allclose(volume.affine, single.affine)
    assert [f.frame_number for f in volume.frames] == [*range(7, 13), *range(1, 7)]
    assert {f.sop_uid for f in volume.frames} == {multi.SOPInstanceUID}
    assert volume.frame_of_reference_uid == multi.FrameOfReferenceUID


@pytest.mark.parametrize("syntax", dicom_compressed.LOSSLESS, ids=lambda uid: uid.name)
def test_every_lossless_syntax_gives_the_same_values(tmp_path: Path, syntax: str):
    """Big endian, deflated, RLE, JPEG lossless, JPEG-LS and JPEG 2000 decode to the same HU."""
    datasets = dicom.ct_series(5, 40, 48)
    plain = only(read(tmp_path / "plain", datasets))
    packed = [dicom_compressed.compress(ds, syntax) for ds in datasets]
    assert {ds.file_meta.TransferSyntaxUID for ds in packed} == {syntax}
    volume = only(read(tmp_path / "packed", packed))
    np.testing.assert_array_equal(volume.array, plain.array)


def test_a_lossy_syntax_stays_within_its_error(tmp_path: Path):
    """Near-lossless JPEG-LS with an error of 2 is off by at most 2 HU."""
    datasets = dicom.ct_series(5, 40, 48)
    plain = only(read(tmp_path / "plain", datasets))
    packed = [dicom_compressed.compress(ds, JPEGLSNearLossless) for ds in datasets]
    difference = only(read(tmp_path / "packed", packed)).array - plain.array
    assert 0 < np.abs(difference).max() <= 2


def test_a_compressed_multiframe_decodes_frame_by_frame(tmp_path: Path):
    """Encapsulated fragments belong to their own frames."""
    datasets = dicom.ct_series(5, 40, 48)
    plain = only(read(tmp_path / "plain", datasets))
    multi = dicom_enhanced.enhanced(datasets)
    packed = dicom_compressed.compress(multi, dicom_compressed.RLELossless)
    volume = only(read(tmp_path / "packed", [packed]))
    np.testing.assert_array_equal(volume.array, plain.array)


def test_missing_slices_are_reported_and_counted(tmp_path: Path):
    """Two absent neighbors make a gap of three spacings: incomplete, not silently thick."""
    datasets = small_ct()
    result = read(tmp_path, [*datasets[:5], *datasets[7:]])
    volume = only(result)
    assert volume.missing_slices == 2
    assert not volume.uniform
    assert not result.complete
    assert any("2 slices missing in 1 gaps" in w for w in result.warnings)


def test_uneven_spacing_is_reported(tmp_path: Path):
    """5 mm through the posterior fossa and 6 mm above is no gap, and not even."""
    datasets = small_ct()
    for n, ds in enumerate(datasets):
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y, z + max(0, n - 6)]
    result = read(tmp_path, datasets)
    volume = only(result)
    assert not volume.uniform
    assert volume.missing_slices == 0
    assert result.complete
    assert any("uneven slice spacing 5.00 to 6.00" in w for w in result.warnings)


def test_position_jitter_is_no_unevenness(tmp_path: Path):
    """Hundredths of a millimeter are how scanners round."""
    datasets = small_ct()
    for n, ds in enumerate(datasets):
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y, f"{z + 0.01 * (-1) ** n:.3f}"]
    assert only(read(tmp_path, datasets)).warnings == ()


def test_positions_of_one_decimal_are_no_unevenness(tmp_path: Path):
    """A spacing of 0.625 mm written as 0.6, 1.2 (or 1.3), 1.9 is even."""
    datasets = dicom.ct_series(12, 16, 16, (0.625, 1.0, 1.0))
    for ds in datasets:
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y, f"{float(z):.1f}"]
    assert only(read(tmp_path, datasets)).warnings == ()


def test_a_ct_without_rescale_is_not_guessed_at(tmp_path: Path):
    """Unsigned values without intercept are no HU; signed ones are taken for HU, which is said."""
    gone = {"RescaleIntercept": None, "RescaleSlope": None, "RescaleType": None}
    result = read(tmp_path / "unsigned", small_ct(**gone))
    assert result.skipped_reason == "CT without rescale intercept: its values are not HU"
    assert result.failed
    signed = read(tmp_path / "signed", small_ct(signed=True, intercept=0.0, **gone))
    assert only(signed).array.max() == 900
    assert any("signed values taken for HU" in w for w in signed.warnings)


def test_lossy_sources_are_said(tmp_path: Path):
    """A reader should know that detail may be gone."""
    result = read(tmp_path, small_ct(LossyImageCompression="01"))
    assert "lossy compressed images" in only(result).warnings


def test_the_same_instance_twice_counts_once(tmp_path: Path):
    """A re-sent slice (the same SOP Instance UID) makes no second stack."""
    datasets = small_ct()
    files = dicom.save_all(datasets, tmp_path)
    copy = tmp_path / "again.dcm"
    copy.write_bytes(files[3].read_bytes())
    result = read_series(SeriesInput("1.2", "CT", "", (*files, copy)))
    assert only(result).array.shape == SHAPE


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient"])
@pytest.mark.parametrize("value", [None, ""])
def test_without_position_or_orientation_there_is_no_volume(
    tmp_path: Path, keyword: str, value: str | None
):
    """Absent or empty geometry is a reason, not a guess."""
    result = read(tmp_path, small_ct(**{keyword: value}))
    assert result.volumes == ()
    assert "usable position, orientation and pixel spacing" in result.skipped_reason


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"PixelSpacing": [0, 0]}, "pixel spacing is not positive"),
        ({"PixelSpacing": None}, "position, orientation and pixel spacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no frame has a usable"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.5, 0.9, 0]}, "unit vectors at right angles"),
    ],
)
def test_impossible_geometry_is_refused_with_a_reason(
    tmp_path: Path, tags: dict[str, Any], reason: str
):
    """Directions and spacings that describe no planes in space are named."""
    result = read(tmp_path, small_ct(**tags))
    assert result.volumes == ()
    assert reason in result.skipped_reason


def test_too_few_slices_are_no_volume(tmp_path: Path):
    """Three slices cannot fill one token."""
    result = read(tmp_path, small_ct()[:3])
    assert result.skipped_reason == "only 3 slices, needs 4"


def test_color_images_are_no_volume(tmp_path: Path):
    """RGB fused or 3D pictures sit in CT series too."""
    datasets = small_ct()[:5]
    for ds in datasets:
        ds.SamplesPerPixel, ds.PlanarConfiguration = 3, 0
        ds.PhotometricInterpretation = "RGB"
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit = 7
        ds.PixelData = bytes(SHAPE[1] * SHAPE[2] * 3)
    assert read(tmp_path, datasets).skipped_reason == "color images"


def test_one_truncated_slice_leaves_a_partial_volume(tmp_path: Path):
    """A slice cut off in transit is left out, said, and interpolated for the model only."""
    datasets = small_ct()
    datasets[5].PixelData = datasets[5].PixelData[:100]
    result = read(tmp_path, datasets)
    volume = only(result)
    assert volume.array.shape[0] == len(volume.frames) == 11
    assert datasets[5].SOPInstanceUID not in {f.sop_uid for f in volume.frames}
    assert volume.missing_slices == 1
    assert not result.complete
    assert any("1 of 12 frames lost" in w for w in result.warnings)


def test_many_undecodable_slices_fail_the_series(tmp_path: Path):
    """Beyond a fifth the series is not guessed at."""
    datasets = [
        dicom_compressed.compress(ds, dicom_compressed.JPEG2000Lossless)
        for ds in dicom.ct_series(8, 40, 48)
    ]
    for ds in datasets[2:6]:
        ds.PixelData = ds.PixelData[:40] + bytes(len(ds.PixelData) - 48) + ds.PixelData[-8:]
    result = read(tmp_path, datasets)
    assert result.volumes == ()
    assert "4 of 8 frames lost" in result.skipped_reason


def test_files_that_are_no_dicom_are_counted(tmp_path: Path):
    """Stray files do not spoil a series, and are said."""
    files = dicom.save_all(small_ct(), tmp_path)
    for n in range(2):
        (tmp_path / f"{n}.txt").write_text("not DICOM")
    extra = tuple(tmp_path / f"{n}.txt" for n in range(2))
    result = read_series(SeriesInput("1.2", "CT", "", (*files, *extra, tmp_path / "gone.dcm")))
    assert only(result).array.shape == SHAPE
    assert "2 files not used: not a DICOM file" in result.warnings
    assert "1 files not used: unreadable file" in result.warnings
    assert not result.complete


def test_a_series_without_files_has_a_reason():
    """Nothing in, a reason out."""
    assert read_series(SeriesInput("1.2", "CT", "", ())).skipped_reason == "no files"


def test_reasons_hold_nothing_of_the_patient(tmp_path: Path):
    """Warnings are logged and stored: no name, identity, accession or path may be in them."""
    datasets = small_ct(PatientName="Secret^Name", PatientID="SECRET7")
    datasets[4].PixelData = b"short"
    datasets[6].ImagePositionPatient = ""
    (tmp_path / "SECRET.dcm").write_bytes(b"x")
    files = (*dicom.save_all(datasets, tmp_path), tmp_path / "SECRET.dcm")
    text = str(read_series(SeriesInput("1.2", "CT", "", files)).warnings).upper()
    assert "LOST" in text
    assert "SECRET" not in text
    assert str(tmp_path).upper() not in text

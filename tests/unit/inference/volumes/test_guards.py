"""Absurd and hostile files are refused before memory is spent on them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from factories import dicom, dicom_compressed, dicom_enhanced
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from inference.study import SeriesInput
from inference.volumes import Limits, SeriesVolumes, guards, read_series


def read(files: tuple[Path, ...], **limits: int) -> SeriesVolumes:
    """Read with limits."""
    return read_series(SeriesInput("1.2", "CT", "", files), Limits(**limits))


def test_a_frame_larger_than_the_limit_is_refused(tmp_path: Path):
    """Rows and columns of 60000 never reach an allocation."""
    files = dicom.save_all(dicom.ct_series(6, 8, 8, Rows=60000, Columns=60000), tmp_path)
    assert "frame larger than the limit" in read(files).skipped_reason


def test_an_absurd_frame_count_is_refused(tmp_path: Path):
    """A multi-frame that claims a billion frames is not believed."""
    multi = dicom_enhanced.enhanced(dicom.ct_series(6, 8, 8))
    multi.NumberOfFrames = 10**9
    files = dicom.save_all([multi], tmp_path)
    assert "more frames in one file" in read(files).skipped_reason


def test_fewer_functional_groups_than_frames_are_refused(tmp_path: Path):
    """Frames without a place cannot be put into a volume."""
    multi = dicom_enhanced.enhanced(dicom.ct_series(6, 8, 8))
    multi.NumberOfFrames = 7
    files = dicom.save_all([multi], tmp_path)
    assert "fewer functional groups than frames" in read(files).skipped_reason


def test_a_volume_larger_than_the_limit_is_refused(tmp_path: Path):
    """The sum over the slices counts as well."""
    files = dicom.save_all(dicom.ct_series(6, 8, 8), tmp_path)
    assert read(files, max_voxels=6 * 64).volumes
    assert "larger than the limit" in read(files, max_voxels=6 * 64 - 1).skipped_reason


def test_a_deflate_bomb_is_refused(tmp_path: Path):
    """Five kilobytes that inflate to many megabytes are counted, not inflated."""
    (ds,) = dicom.ct_series(1, 8, 8)
    deflated = dicom_compressed.compress(ds, DeflatedExplicitVRLittleEndian)
    path = dicom.save(deflated, tmp_path / "bomb.dcm")
    raw = path.read_bytes()
    (group_length,) = struct.unpack("<I", raw[140:144])
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = squeeze.compress(bytes(64 << 20)) + squeeze.flush()
    path.write_bytes(raw[: 144 + group_length] + bomb)
    assert "deflated dataset larger" in read((path,), max_inflated_bytes=8 << 20).skipped_reason


@pytest.mark.parametrize(
    "syntax",
    [
        dicom_compressed.JPEG2000Lossless,
        dicom_compressed.JPEGLSLossless,
        dicom_compressed.JPEGLosslessSV1,
    ],
    ids=lambda uid: uid.name,
)
def test_a_codestream_of_another_size_never_reaches_its_decoder(tmp_path: Path, syntax: str):
    """A small image whose codestream claims 50000 x 50000 would make a decoder allocate that."""
    datasets = [dicom_compressed.compress(ds, syntax) for ds in dicom.ct_series(5, 40, 48)]
    frame = next(generate_frames(datasets[2].PixelData, number_of_frames=1))
    assert guards.codestream_size(frame) == (40, 48)
    if frame[:2] == b"\xff\x4f":
        forged = frame[:8] + struct.pack(">II", 50000, 50000) + frame[16:]
    else:
        forged = frame.replace(struct.pack(">HH", 40, 48), struct.pack(">HH", 50000, 50000), 1)
    assert guards.codestream_size(forged) == (50000, 50000)
    for ds in datasets:
        ds.PixelData = encapsulate([forged])
    reason = read(dicom.save_all(datasets, tmp_path)).skipped_reason
    assert "another size than its header says" in reason


@pytest.mark.parametrize(
    "junk", [b"", b"\xff\xd8", b"\xff\xd8\xff\xff\xff\xff", b"\xff\x4f\xff\x51"]
)
def test_a_cut_codestream_has_no_size(junk: bytes):
    """Truncated markers are undecided, not an error."""
    assert guards.codestream_size(junk) is None


@pytest.mark.filterwarnings("ignore")  # as in production, pydicom may warn and go on
def test_any_cut_of_a_file_is_survived(tmp_path: Path):
    """A file cut anywhere is unreadable or an image, never an exception."""
    files = dicom.save_all(dicom.ct_series(6, 16, 16), tmp_path)
    whole = files[2].read_bytes()
    for at in range(0, len(whole), 149):
        files[2].write_bytes(whole[:at])
        result = read(files)
        assert result.volumes or result.skipped_reason
        assert not result.complete


@pytest.mark.filterwarnings("ignore")  # as in production, pydicom may warn and go on
def test_damaged_bytes_are_survived(tmp_path: Path):
    """Every header byte turned over in turn gives a volume or a reason."""
    files = dicom.save_all(dicom.ct_series(5, 8, 8), tmp_path)
    whole = files[2].read_bytes()
    for at in range(132, len(whole), 29):
        files[2].write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        result = read(files)
        assert result.volumes or result.skipped_reason


def test_only_deflated_files_are_held_whole(tmp_path: Path):
    """Other syntaxes are decoded frame by frame from the file."""
    (ds,) = dicom.ct_series(1, 8, 8)
    plain = dicom.save(ds, tmp_path / "plain.dcm")
    packed = dicom.save(
        dicom_compressed.compress(ds, DeflatedExplicitVRLittleEndian), tmp_path / "packed.dcm"
    )
    assert ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert not guards.is_deflated(plain)
    assert guards.is_deflated(packed)

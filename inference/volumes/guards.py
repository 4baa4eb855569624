"""Refuse what would exhaust memory before anything is allocated or decoded for it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from inference.volumes.volume import Limits

HTJ2K = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203))
J2K = frozenset(JPEG2000TransferSyntaxes) | HTJ2K
JPEG = frozenset(JPEGTransferSyntaxes) | frozenset(JPEGLSTransferSyntaxes)
START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
CHUNK = 1 << 20


class RefusedError(Exception):
    """A file or frame that is not read; the message is a reason to show, without content."""


def check_frame_size(rows: int, columns: int, frames: int, limits: Limits) -> None:
    """Refuse frames and frame counts that no head scanner writes."""
    if rows * columns > limits.max_frame_pixels:
        raise RefusedError("frame larger than the limit")
    if not 0 < frames <= limits.max_frames_per_file:
        raise RefusedError("more frames in one file than the limit")


def check_inflated_size(path: Path, limits: Limits) -> None:
    """Refuse a deflated dataset that would inflate beyond the limit."""
    meta = read_file_meta_info(path)
    if not _is_deflated(meta):
        return
    inflate, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as file:
        file.seek(_dataset_offset(meta.get("FileMetaInformationGroupLength")))
        while chunk := file.read(CHUNK):
            while chunk:
                total += len(inflate.decompress(chunk, CHUNK))
                chunk = inflate.unconsumed_tail
                if total > limits.max_inflated_bytes:
                    raise RefusedError("deflated dataset larger than the limit")


def check_codestreams(path: Path, rows: int, columns: int, frames: int) -> None:
    """Refuse compressed frames whose own header claims another size than the dataset's.

    A decoder allocates what the codestream claims, whatever the dataset says.
    """
    for frame in _encapsulated_frames(path, frames):
        size = codestream_size(frame)
        if size is not None and size != (rows, columns):
            raise RefusedError("compressed frame of another size than its header says")


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 codestream claims, or None."""
    if frame[:4] == b"\xff\x4f\xff\x51" and len(frame) >= 24:
        x_size, y_size, x_offset, y_offset = struct.unpack(">4I", frame[8:24])
        return y_size - y_offset, x_size - x_offset
    if frame[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker in START_OF_FRAME:
            rows, columns = struct.unpack(">HH", frame[at + 5 : at + 9])
            return rows, columns
        at += 1 if marker == 0xFF else 2 + length
    return None


def is_deflated(path: Path) -> bool:
    """Whether the whole dataset is compressed, so that no part of it can be read alone."""
    return _is_deflated(read_file_meta_info(path))


def _is_deflated(meta: Dataset) -> bool:
    return bool(meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)


def _encapsulated_frames(path: Path, frames: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        ds = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[])
        syntax = UID(ds.file_meta.TransferSyntaxUID)
        if syntax not in J2K and syntax not in JPEG:
            return
        # The element's tag, VR, reserved bytes and undefined length: encapsulated data is
        # always explicit little endian (PS3.5 A.4).
        if file.read(12)[:4] != b"\xe0\x7f\x10\x00":
            raise RefusedError("no pixel data")
        yield from generate_frames(file, number_of_frames=frames)


def _dataset_offset(group_length: object) -> int:
    """Preamble, magic, the group length element itself, then what it counts."""
    if not isinstance(group_length, int):
        raise RefusedError("damaged header")
    return 128 + 4 + 12 + group_length

"""Decode a stack's frames into physical values: padding, inversion and rescale per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import iter_pixels

from inference.volumes import guards
from inference.volumes.headers import FrameHeader
from inference.volumes.volume import CT_AIR_HU, Array


@dataclass(frozen=True)
class Decoded:
    """Values of the frames [K, R, C]; frames that could not be decoded, by index, with why."""

    array: Array
    failed: dict[int, str]


def decode(frames: Sequence[FrameHeader]) -> Decoded:
    """Decode frames file by file; memory is the result plus one frame."""
    shape = (len(frames), frames[0].rows, frames[0].columns)
    array = np.zeros(shape, dtype=value_type(frames))
    failed: dict[int, str] = {}
    by_file: dict[Path, dict[int, int]] = {}
    for k, frame in enumerate(frames):
        by_file.setdefault(frame.path, {})[frame.frame_number - 1] = k
    for path, wanted in by_file.items():
        _decode_file(path, wanted, frames, array, failed)
    return Decoded(_narrowed(array), failed)


def value_type(frames: Sequence[FrameHeader]) -> np.dtype[np.generic]:
    """The narrowest of int16, int32 and float32 that holds every possible value."""
    low, high = 0.0, 0.0
    for frame in frames:
        if frame.has_modality_lut:
            return np.dtype(np.float32)
        if not (frame.slope.is_integer() and frame.intercept.is_integer()):
            return np.dtype(np.float32)
        stored = _stored_range(frame)
        ends = [value * frame.slope + frame.intercept for value in stored]
        low, high = min(low, *ends), max(high, *ends)
    for candidate in (np.dtype(np.int16), np.dtype(np.int32)):
        info = np.iinfo(candidate)
        if info.min <= low and high <= info.max:
            return candidate
    return np.dtype(np.float32)


def physical(stored: Array, frame: FrameHeader) -> Array:
    """Stored values to HU or MR intensity; padding becomes air (CT) or the frame's darkest."""
    values = stored.astype(np.float64)
    if frame.photometric == "MONOCHROME1" and frame.modality != "CT":
        # Rescaled CT values are HU however they are displayed; MR has no such anchor.
        low, high = _stored_range(frame)
        values = low + high - values
    values = values * frame.slope + frame.intercept
    if frame.padding is not None:
        padded = (stored >= frame.padding[0]) & (stored <= frame.padding[1])
        if padded.any():
            values[padded] = _background(values, padded, frame)
    return values


def _background(values: Array, padded: Array, frame: FrameHeader) -> float:
    if frame.modality == "CT":
        return CT_AIR_HU
    return float(values[~padded].min()) if not padded.all() else 0.0


def _stored_range(frame: FrameHeader) -> tuple[int, int]:
    if frame.signed:
        return -(1 << (frame.bits_stored - 1)), (1 << (frame.bits_stored - 1)) - 1
    return 0, (1 << frame.bits_stored) - 1


def _decode_file(
    path: Path,
    wanted: dict[int, int],
    frames: Sequence[FrameHeader],
    array: Array,
    failed: dict[int, str],
) -> None:
    """Decode the frames `wanted` (index in the file -> slice) of one file into `array`."""
    first = frames[next(iter(wanted.values()))]
    done: set[int] = set()
    try:
        guards.check_codestreams(path, first.rows, first.columns, first.frames_in_file)
        indices = sorted(wanted)
        # A file is decoded frame by frame; a deflated one has to be held whole.
        source = pydicom.dcmread(path) if guards.is_deflated(path) else path
        decoded = iter_pixels(source, indices=indices, raw=True)
        for index, stored in zip(indices, decoded, strict=False):
            k = wanted[index]
            array[k] = _fitted(_values(stored, frames[k], path), array)
            done.add(k)
        reason = "frame absent"
    except guards.RefusedError as refusal:
        reason = str(refusal)
    except Exception as error:  # noqa: BLE001 - decoder plugins raise whatever C led to
        reason = f"undecodable pixel data ({type(error).__name__})"
    failed.update({k: reason for k in wanted.values() if k not in done})


def _values(stored: Array, frame: FrameHeader, path: Path) -> Array:
    if stored.shape != (frame.rows, frame.columns):
        raise guards.RefusedError("decoded frame of another size than its header says")
    if frame.has_modality_lut:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        return np.asarray(apply_modality_lut(stored, ds), dtype=np.float64)
    return physical(stored, frame)


def _narrowed(array: Array) -> Array:
    """int16 where the values that really occur fit it (12-bit CT stored in unsigned 16 bits)."""
    info = np.iinfo(np.int16)
    fits = array.dtype == np.int32 and info.min <= array.min() and array.max() <= info.max
    return array.astype(np.int16) if fits else array


def _fitted(values: Array, array: Array) -> Array:
    """Values clipped to the target type: stored bits beyond BitsStored must not wrap around."""
    if array.dtype.kind != "i":
        return values
    info = np.iinfo(array.dtype)
    return np.clip(np.rint(values), info.min, info.max)

"""Decode a stack's frames into physical values: padding, inversion and rescale per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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
    """Decode frames file by file; memory is the result plus one frame.

    The result is uint16 where unsigned pixels rescale to no negative value, int16 where rescale
    and values allow, int32 where only the range does not, and float32 where a rescale is
    fractional.
    """
    slab = _Slab(_new_array(frames))
    by_file: dict[Path, dict[int, int]] = {}
    for k, frame in enumerate(frames):
        by_file.setdefault(frame.path, {})[frame.frame_number - 1] = k
    for path, wanted in by_file.items():
        _decode_file(path, wanted, frames, slab)
    return Decoded(slab.array, slab.failed)


def physical(stored: Array, frame: FrameHeader) -> Array:
    """Stored values to HU or MR intensity; padding becomes air (CT) or the frame's darkest."""
    values: Array = stored.astype(np.int32 if _is_integral(frame) else np.float64)
    if frame.photometric == "MONOCHROME1" and frame.modality != "CT":
        # Rescaled CT values are HU however they are displayed; MR has no such anchor.
        values = sum(_stored_range(frame)) - values
    if (frame.slope, frame.intercept) != (1.0, 0.0):
        number = values.dtype.type
        values = values * number(frame.slope) + number(frame.intercept)
    if frame.padding is not None:
        low, high = (_as_stored(value, frame) for value in frame.padding)
        padded = (stored >= low) & (stored <= high)
        if padded.any():
            values[padded] = _background(values, padded, frame)
    return values


@dataclass
class _Slab:
    """The result while it grows: the array widens when a frame needs it."""

    array: Array
    failed: dict[int, str] = field(default_factory=dict)

    def put(self, k: int, values: Array) -> None:
        if self.array.dtype in (np.int16, np.uint16):
            info = np.iinfo(self.array.dtype)
            if values.min() < info.min or values.max() > info.max:
                self.array = self.array.astype(np.int32)
        self.array[k] = values


def _new_array(frames: Sequence[FrameHeader]) -> Array:
    shape = len(frames), frames[0].rows, frames[0].columns
    if not all(map(_is_integral, frames)):
        return np.zeros(shape, dtype=np.float32)
    return np.zeros(shape, dtype=np.uint16 if all(map(_is_unsigned, frames)) else np.int16)


def _is_unsigned(frame: FrameHeader) -> bool:
    """Whether readers of files, ITK among them, hold the rescaled values as unsigned.

    It shows in the model's numbers: resampling undershoots at edges, and unsigned values stop at 0.
    """
    if frame.signed or (frame.modality == "CT" and frame.padding is not None):
        return False  # padding of a CT becomes air, which is negative
    ends = [value * frame.slope + frame.intercept for value in _stored_range(frame)]
    return min(ends) >= 0 and max(ends) <= np.iinfo(np.uint16).max


def _is_integral(frame: FrameHeader) -> bool:
    """Whether every possible value of a frame is a whole number of at most 32 bits."""
    if frame.has_modality_lut or not (frame.slope.is_integer() and frame.intercept.is_integer()):
        return False
    largest = max(map(abs, _stored_range(frame))) * abs(frame.slope) + abs(frame.intercept)
    return largest < np.iinfo(np.int32).max


def _background(values: Array, padded: Array, frame: FrameHeader) -> float:
    if frame.modality == "CT":
        return CT_AIR_HU
    return float(values[~padded].min()) if not padded.all() else 0.0


def _stored_range(frame: FrameHeader) -> tuple[int, int]:
    if frame.signed:
        return -(1 << (frame.bits_stored - 1)), (1 << (frame.bits_stored - 1)) - 1
    return 0, (1 << frame.bits_stored) - 1


def _as_stored(value: int, frame: FrameHeader) -> int:
    """A padding value written with the other sign than the pixels it stands for."""
    if frame.signed and value > (1 << 15) - 1:
        return value - (1 << 16)
    return value + (1 << 16) if not frame.signed and value < 0 else value


def _decode_file(
    path: Path, wanted: dict[int, int], frames: Sequence[FrameHeader], slab: _Slab
) -> None:
    """Decode the frames `wanted` (index in the file -> slice) of one file."""
    first = frames[next(iter(wanted.values()))]
    left = set(wanted.values())
    try:
        guards.check_codestreams(path, first.rows, first.columns, first.frames_in_file)
        indices = sorted(wanted)
        # A file is decoded frame by frame; a deflated one has to be held whole.
        source = pydicom.dcmread(path) if guards.is_deflated(path) else path
        decoded = iter_pixels(source, indices=indices, raw=True)
        for index, stored in zip(indices, decoded, strict=False):
            k = wanted[index]
            slab.put(k, _values(stored, frames[k], path))
            left.discard(k)
        reason = "frame absent"
    except guards.RefusedError as refusal:
        reason = str(refusal)
    except Exception as error:  # noqa: BLE001 - decoder plugins raise whatever C led to
        reason = f"undecodable pixel data ({type(error).__name__})"
    slab.failed.update(dict.fromkeys(left, reason))


def _values(stored: Array, frame: FrameHeader, path: Path) -> Array:
    if stored.shape != (frame.rows, frame.columns):
        raise guards.RefusedError("decoded frame of another size than its header says")
    if frame.has_modality_lut:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        return np.asarray(apply_modality_lut(stored, ds), dtype=np.float64)
    return physical(stored, frame)

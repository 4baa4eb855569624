"""Frames of a stored instance: as they are stored, or decoded to little endian (PS3.18 8.7.3.3)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom.encaps import get_frame
from pydicom.uid import UID

from dicom_nodes.presentation import EXPLICIT_LITTLE
from dicom_nodes.web.errors import NotThere, TooLarge, Undecodable
from dicom_nodes.web.json_model import Opened

if TYPE_CHECKING:
    import numpy.typing as npt

OCTETS = "application/octet-stream"
MAX_FRAME_BYTES = 1 << 28
#: Media types of compressed frames (PS3.18 table 8.7.3-5).
MEDIA_TYPES = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}


def is_native(transfer_syntax_uid: str) -> bool:
    """Whether pixel data of that syntax is not compressed."""
    return bool(transfer_syntax_uid) and not UID(transfer_syntax_uid).is_encapsulated


def is_decodable(transfer_syntax_uid: str) -> bool:
    """Whether frames of that syntax can be decoded here."""
    if transfer_syntax_uid == EXPLICIT_LITTLE:
        return True
    from pydicom.pixels.decoders.base import get_decoder

    try:
        return bool(get_decoder(UID(transfer_syntax_uid)).is_available)
    except (NotImplementedError, ValueError):
        return False


def check_numbers(opened: Opened, numbers: list[int]) -> None:
    """Refuse frames that are not there; numbers begin at 1.

    Raises:
        NotThere: the instance has no such frame, or no pixel data.
    """
    if not opened.frames:
        raise NotThere("the instance has no pixel data")
    if any(not 1 <= number <= opened.frames for number in numbers):
        raise NotThere("the instance has no such frame")


def stored_frame(path: Path, opened: Opened, number: int) -> bytes:
    """One compressed frame, as it is stored.

    Raises:
        Undecodable: the fragments make no frame.
    """
    if opened.pixel_offset is None:
        raise Undecodable("a frame of a deflated instance is not stored by itself")
    with path.open("rb") as stream:
        stream.seek(opened.pixel_offset + 12)
        try:
            return get_frame(stream, number - 1, number_of_frames=opened.frames)
        except OSError:
            raise
        except Exception as error:  # stored foreign bytes
            raise Undecodable("the compressed frame cannot be found in its fragments") from error


def decoded_frame(path: Path, opened: Opened, number: int) -> bytes:
    """One frame decoded: little endian, pixels of one color together, bits packed.

    Raises:
        Undecodable: no decoder can.
        TooLarge: it would take too much memory.
    """
    import numpy as np

    array = decoded_array(path, opened, number, raw=True)
    if opened.dataset.get("BitsAllocated") == 1:
        return np.packbits(array.reshape(-1), bitorder="little").tobytes()
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def decoded_array(path: Path, opened: Opened, number: int, *, raw: bool) -> npt.NDArray[Any]:
    """One frame as an array; unless `raw`, YBR becomes RGB.

    Raises:
        Undecodable: no decoder can.
        TooLarge: it would take too much memory.
    """
    from pydicom.pixels.utils import pixel_array

    _check_size(opened)
    try:
        array: npt.NDArray[Any] = pixel_array(path, index=number - 1, raw=raw)
    except OSError:
        raise
    except Exception as error:  # decoders fail in many ways, and quote what they read
        raise Undecodable(f"the frame cannot be decoded ({type(error).__name__})") from error
    return array


def _check_size(opened: Opened) -> None:
    ds = opened.dataset
    try:
        pixels = int(ds.Rows) * int(ds.Columns) * int(ds.get("SamplesPerPixel", 1))
        size = pixels * max(int(ds.get("BitsAllocated", 16)), 8) // 8
    except (AttributeError, TypeError, ValueError) as error:
        raise Undecodable("the instance does not say how large its frames are") from error
    if size > MAX_FRAME_BYTES:
        raise TooLarge("a decoded frame would be larger than the limit")

"""Frames as pictures (PS3.18 section 8.3.5 and 10.4.1.1.3): windowed, scaled, PNG or JPEG."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom.multival import MultiValue

from dicom_nodes.web import frames
from dicom_nodes.web.errors import Undecodable, WebRequestError
from dicom_nodes.web.json_model import Opened

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from pydicom.dataset import Dataset

JPEG, PNG = "image/jpeg", "image/png"
FORMATS = {JPEG: "JPEG", PNG: "PNG"}
THUMBNAIL = 128
MAX_SIDE = 4096
FUNCTIONS = ("linear", "linear-exact", "sigmoid")


@dataclass(frozen=True)
class Window:
    """Center, width and function (PS3.3 C.11.2.1.2)."""

    center: float
    width: float
    function: str = "linear"


@dataclass(frozen=True)
class Look:
    """How a picture is wanted; without a window, the instance's own or its range of values."""

    window: Window | None = None
    size: tuple[int, int] | None = None
    quality: int = 90


def look(params: Mapping[str, str]) -> Look:
    """Read ``window``, ``viewport`` and ``quality``.

    Raises:
        WebRequestError: one of them cannot be read, or is not supported.
    """
    window = viewport = None
    if "window" in params:
        window = _window(params["window"])
    if "viewport" in params:
        viewport = _viewport(params["viewport"])
    text = params.get("quality", "90")
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise WebRequestError("quality is a number from 1 to 100")
    return Look(window, viewport, int(text))


def picture(path: Path, opened: Opened, number: int, media_type: str, wanted: Look) -> bytes:
    """One frame as PNG or JPEG.

    Raises:
        Undecodable: the instance has no frames that can be decoded.
    """
    from PIL import Image

    array = frames.decoded_array(path, opened, number, raw=False)
    image = Image.fromarray(_gray(array, opened.dataset, wanted.window, number))
    if wanted.size is not None:
        image.thumbnail(wanted.size, Image.Resampling.BILINEAR)
    target = io.BytesIO()
    image.save(target, FORMATS[media_type], quality=min(wanted.quality, 95))
    return target.getvalue()


def _window(text: str) -> Window:
    pieces = [piece.strip() for piece in text.split(",")]
    try:
        center, width = float(pieces[0]), float(pieces[1])
    except (IndexError, ValueError):
        raise WebRequestError("window is center,width or center,width,function") from None
    function = pieces[2].lower() if len(pieces) > 2 else "linear"
    if function not in FUNCTIONS or not 0 < width < 1e9 or abs(center) > 1e9:
        raise WebRequestError(f"window: width above 0, function one of {', '.join(FUNCTIONS)}")
    return Window(center, width, function)


def _viewport(text: str) -> tuple[int, int]:
    pieces = [piece.strip() for piece in text.split(",")]
    if len(pieces) != 2 or not all(piece.isdecimal() for piece in pieces):
        raise WebRequestError("viewport is width,height; regions of the image are not supported")
    width, height = int(pieces[0]), int(pieces[1])
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise WebRequestError(f"viewport: from 1 to {MAX_SIDE} pixels")
    return width, height


def _gray(
    array: npt.NDArray[Any], ds: Dataset, window: Window | None, number: int
) -> npt.NDArray[np.uint8]:
    """What the screen shows: 8 bits, [R, C] or [R, C, 3]."""
    import numpy as np
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

    interpretation = str(ds.get("PhotometricInterpretation", "MONOCHROME2"))
    if interpretation == "PALETTE COLOR":
        array = apply_color_lut(array, ds)
    if array.ndim == 3:
        return _eight_bits(array)
    try:
        values = apply_modality_lut(array, ds).astype(np.float64)
    except (AttributeError, TypeError, ValueError) as error:
        raise Undecodable("the modality LUT of the instance cannot be applied") from error
    shown = _applied(values, window or _own_window(ds, number) or _whole_range(values))
    if interpretation == "MONOCHROME1":
        shown = 255 - shown
    return shown


def _own_window(ds: Dataset, number: int) -> Window | None:
    for holder in (ds, *_frame_voi(ds, number)):
        try:
            center, width = _first(holder.get("WindowCenter")), _first(holder.get("WindowWidth"))
            if center is not None and width is not None and float(width) > 0:
                function = str(holder.get("VOILUTFunction") or "linear").lower().replace("_", "-")
                return Window(
                    float(center), float(width), function if function in FUNCTIONS else "linear"
                )
        except (IndexError, TypeError, ValueError):
            continue
    return None


def _first(value: Any) -> Any:
    """The first of several windows."""
    return value[0] if isinstance(value, MultiValue) else value


def _frame_voi(ds: Dataset, number: int) -> list[Dataset]:
    """Frame VOI LUT items of a multi-frame instance (PS3.3 C.7.6.16.2.10)."""
    groups = []
    each = ds.get("PerFrameFunctionalGroupsSequence") or []
    groups += list(each[number - 1 : number])
    groups += list((ds.get("SharedFunctionalGroupsSequence") or [])[:1])
    return [item for group in groups for item in (group.get("FrameVOILUTSequence") or [])[:1]]


def _whole_range(values: npt.NDArray[np.float64]) -> Window:
    low, high = float(values.min()), float(values.max())
    width = max(high - low, 1e-6)
    return Window(low + width / 2, width, "linear-exact")


def _applied(values: npt.NDArray[np.float64], window: Window) -> npt.NDArray[np.uint8]:
    import numpy as np

    center, width = window.center, window.width
    if window.function == "sigmoid":
        shown = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -50, 50)))
    elif window.function == "linear-exact" or width <= 1:
        shown = (values - center) / width + 0.5
    else:
        shown = (values - (center - 0.5)) / (width - 1) + 0.5
    return np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)


def _eight_bits(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    import numpy as np

    if array.dtype == np.uint8:
        return array[..., :3]
    top = float(np.iinfo(array.dtype).max)
    return np.rint(array[..., :3] / top * 255).astype(np.uint8)

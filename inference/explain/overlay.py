"""A slice with the finding painted over it, as a PNG without any text."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

OPACITY = 0.6
CONTOUR_RGB = (0, 255, 255)
MR_PERCENTILES = (1.0, 99.5)


@dataclass(frozen=True)
class Window:
    """The values shown as black and as white (HU, or MR intensity)."""

    low: float
    high: float


CT_BRAIN = Window(0.0, 80.0)
"""Width 80, level 40."""


def window_for(modality: str, pixels: npt.NDArray[np.generic]) -> Window:
    """The usual window: brain for CT, percentiles of the bright voxels for MR."""
    if modality == "CT":
        return CT_BRAIN
    values = np.asarray(pixels, dtype=np.float32)
    shown = values[values > values.min(initial=np.inf)]
    if shown.size == 0:
        return Window(0.0, 1.0)
    low, high = np.percentile(shown, MR_PERCENTILES)
    return Window(float(low), float(high) if high > low else float(low) + 1.0)


def overlay_png(
    pixels: npt.NDArray[np.generic],
    saliency: npt.NDArray[np.float32],
    window: Window,
    *,
    threshold: float = 0.5,
    pixel_spacing_mm: tuple[float, float] = (1.0, 1.0),
    size_px: int = 512,
) -> bytes:
    """Paint saliency as heat and its threshold as a contour over a windowed slice.

    Args:
        pixels: [R, C], one source frame in physical values.
        saliency: [R, C], 0..1 on the same pixels.
        window: what is black and what is white.
        threshold: saliency of the contour.
        pixel_spacing_mm: between rows and between columns; the picture has square pixels.
        size_px: length of the picture's longer side.
    """
    size = _picture_size(pixels.shape, pixel_spacing_mm, size_px)
    gray = (np.asarray(pixels, dtype=np.float32) - window.low) / (window.high - window.low)
    base = _resize(np.clip(gray, 0, 1), size)[..., None] * 255
    heat = np.clip(_resize(saliency, size), 0, 1)
    # Below half the threshold nothing is painted: the anatomy must stay readable.
    strength = np.clip((heat - threshold / 2) / max(1 - threshold / 2, 1e-6), 0, 1)
    alpha = (OPACITY * np.sqrt(strength))[..., None]
    rgb = base * (1 - alpha) + _hot(heat) * 255 * alpha
    rgb[_contour(heat, threshold)] = CONTOUR_RGB
    buffer = io.BytesIO()
    Image.fromarray(np.rint(rgb).astype(np.uint8), "RGB").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _picture_size(
    shape: tuple[int, ...], spacing_mm: tuple[float, float], size_px: int
) -> tuple[int, int]:
    """(width, height) with square pixels."""
    height_mm, width_mm = shape[0] * spacing_mm[0], shape[1] * spacing_mm[1]
    scale = size_px / max(height_mm, width_mm)
    return max(1, round(width_mm * scale)), max(1, round(height_mm * scale))


def _resize(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32), "F")
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)


def _hot(heat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Red to yellow to white, as RGB 0..1."""
    return np.stack([np.clip(3 * heat - shift, 0, 1) for shift in (0.0, 1.0, 2.0)], axis=-1)


def _contour(heat: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.bool_]:
    inside = (heat >= threshold) & (heat > 0)
    edge: npt.NDArray[np.bool_] = inside & ~ndimage.binary_erosion(inside, iterations=2)
    return edge

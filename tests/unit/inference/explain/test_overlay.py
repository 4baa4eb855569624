"""The overlay picture shows the anatomy, the heat and its contour, and nothing else."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from inference.explain import Window, overlay_png, window_for


def read(png: bytes):
    """The picture's pixels and size."""
    image = Image.open(io.BytesIO(png))
    return image, np.asarray(image).astype(int)


def spot(shape: tuple[int, int] = (64, 64)):
    """A Gaussian spot right of the middle."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-(((y - 32) / 6) ** 2 + ((x - 44) / 6) ** 2)).astype(np.float32)


def test_anatomy_is_gray_where_nothing_was_seen():
    """Without saliency the picture is the windowed slice: black, mid-gray, white."""
    pixels = np.zeros((64, 64), np.int16)
    pixels[:, 20:40], pixels[:, 40:] = 40, 200
    _, rgb = read(overlay_png(pixels, np.zeros((64, 64), np.float32), Window(0, 80)))
    row = rgb[256]
    assert (row[:, 0] == row[:, 1]).all()
    assert (row[:, 1] == row[:, 2]).all()
    assert row[10, 0] == 0
    assert row[240, 0] in (127, 128)
    assert row[500, 0] == 255


def test_heat_is_warm_at_the_peak_and_outlined_by_the_contour():
    """The peak is redder than blue, and cyan pixels ring it."""
    pixels = np.full((64, 64), 40, np.int16)
    _, rgb = read(overlay_png(pixels, spot(), Window(0, 80), threshold=0.5))
    assert rgb[256, 375, 0] > rgb[0, 0, 0]
    cyan = (rgb == (0, 255, 255)).all(axis=-1)
    rows, cols = np.nonzero(cyan)
    assert 150 < cyan.sum() < 3000
    assert abs(rows.mean() - 32.5 * 8) < 8
    assert abs(cols.mean() - 44.5 * 8) < 8
    assert not cyan[256, 356]


def test_pixels_become_square():
    """Rows twice as far apart as columns make the picture twice as tall."""
    pixels = np.zeros((64, 64), np.int16)
    png = overlay_png(pixels, spot(), Window(0, 80), pixel_spacing_mm=(2.0, 1.0))
    assert read(png)[0].size == (256, 512)


def test_the_picture_carries_no_text_chunks():
    """PNG metadata could leak identity: there is none."""
    image, _ = read(overlay_png(np.zeros((8, 8)), spot((8, 8)), Window(0, 1)))
    assert image.info == {}


def test_windows_follow_the_modality():
    """CT has the brain window; MR follows its own intensities and survives a constant slice."""
    assert window_for("CT", np.zeros((2, 2))) == Window(0.0, 80.0)
    mr = window_for("MR", np.concatenate([np.zeros(900), np.linspace(100, 200, 100)]))
    assert 99 < mr.low < 105
    assert 195 < mr.high <= 200
    flat = window_for("MR", np.ones((4, 4)))
    assert flat.high > flat.low

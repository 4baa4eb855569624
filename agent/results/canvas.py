"""A small drawing surface: boxes, smooth text, pictures, in page coordinates.

Everything is drawn at twice its size and scaled down, which gives smooth text, and a weight between
regular and bold, from the one typeface that Pillow brings along: no font files, the same pixels on
every machine.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from agent.results.text import plain

SCALE = 2
TEXT = (236, 239, 244)
Color = tuple[int, int, int]


class Canvas:
    """Draws in page coordinates on the double-sized picture."""

    def __init__(self, width: int, height: int, background: Color) -> None:
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), background)
        self._draw = ImageDraw.Draw(self.image)

    def box(
        self,
        xy: tuple[float, float, float, float],
        fill: Color,
        radius: float = 0,
    ) -> None:
        """A filled rectangle, left, top, right, bottom."""
        scaled = tuple(v * SCALE for v in xy)
        self._draw.rounded_rectangle(scaled, radius * SCALE, fill=fill)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int,
        color: Color = TEXT,
        *,
        bold: bool = False,
        anchor: str = "ls",
    ) -> float:
        """Draw a line of text; `anchor` as in Pillow. Returns its width."""
        font = _font(size)
        # Half a page pixel of outline in the text's own color reads as bold.
        self._draw.text(
            (x * SCALE, y * SCALE),
            text,
            fill=color,
            font=font,
            anchor=anchor,
            stroke_width=1 if bold else 0,
            stroke_fill=color,
        )
        return font.getlength(text) / SCALE

    def paragraph(
        self, xy: tuple[float, float], text: str, size: int, *, width: float, lines: int
    ) -> float:
        """Draw text broken at words; returns the baseline below it."""
        x, y = xy
        for line in wrap(text, size, width, lines):
            self.text(x, y, line, size)
            y += size * 1.35
        return y

    def paste(self, picture: Image.Image, x: float, y: float) -> None:
        """Put a picture of double-sized pixels at a page position."""
        self.image.paste(picture, (round(x * SCALE), round(y * SCALE)))

    def pixels(self) -> npt.NDArray[np.uint8]:
        """The page at its final size."""
        return np.asarray(self.image.reduce(SCALE))


def wrap(text: str, size: int, width: float, lines: int) -> list[str]:
    """Break text at words into at most `lines` lines; what is cut is marked by dots."""
    font, result, line = _font(size), [], ""
    words = plain(text).split()
    for word in words:
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width * SCALE:
            result.append(line)
            line = word
        else:
            line = longer
    result.append(line)
    if len(result) <= lines:
        return result
    return [*result[: lines - 1], shorten(f"{result[lines - 1]} ...", size, width)]


def shorten(text: str, size: int, width: float) -> str:
    """Cut text to a width, marked by dots."""
    font = _font(size)
    if font.getlength(text) <= width * SCALE:
        return text
    while text and font.getlength(f"{text}...") > width * SCALE:
        text = text[:-1]
    return f"{text.rstrip()}..."


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size * SCALE)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise OSError("Pillow was built without FreeType; install the binary wheel of Pillow")
    return font

"""Text is readable in both themes: WCAG AA, computed from the style sheet's own colors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent import web

CSS = (Path(web.__file__).parent / "static" / "worklist.css").read_text()
#: Text and what it stands on, in the names of the style sheet.
PAIRS = [
    *[("text", back) for back in ("page", "surface", "raised", "hover")],
    *[("soft", back) for back in ("page", "surface", "raised", "hover")],
    *[("link", back) for back in ("page", "surface", "hover")],
    *[(f"{level}-text", level) for level in ("stat", "high", "medium", "low")],
    ("good", "good-back"),
    ("good", "surface"),
    ("bad", "bad-back"),
    ("bad", "surface"),
    ("bad", "hover"),
    ("note", "note-back"),
    ("note", "surface"),
    ("shadow-text", "shadow-back"),
]
#: What is no text but must be seen: focus rings, bars, borders of levels.
SHAPES = [("focus", "surface"), ("focus", "page"), ("fill", "track"), ("stat", "surface")]


def _theme(start: str) -> dict[str, str]:
    block = CSS[CSS.index(start) :]
    block = block[: block.index("}")]
    return dict(re.findall(r"--([a-z-]+):\s*(#[0-9a-f]{3,6})", block))


THEMES = {
    "light": _theme(":root {"),
    "dark": _theme(':root[data-theme="dark"]'),
    "dark by system": _theme(":root:not([data-theme])"),
}


@pytest.mark.parametrize("theme", THEMES)
def test_text_stands_out_from_its_background(theme: str):
    """At least 4.5 to 1."""
    colors = THEMES[theme]
    weak = {
        pair: round(_contrast(colors[pair[0]], colors[pair[1]]), 2)
        for pair in PAIRS
        if _contrast(colors[pair[0]], colors[pair[1]]) < 4.5
    }

    assert weak == {}


@pytest.mark.parametrize("theme", THEMES)
def test_shapes_that_mean_something_can_be_seen(theme: str):
    """At least 3 to 1."""
    colors = THEMES[theme]
    weak = {
        pair: round(_contrast(colors[pair[0]], colors[pair[1]]), 2)
        for pair in SHAPES
        if _contrast(colors[pair[0]], colors[pair[1]]) < 3
    }

    assert weak == {}


def test_both_dark_themes_are_one():
    """Chosen or by system."""
    assert THEMES["dark"] == THEMES["dark by system"]


def _contrast(one: str, other: str) -> float:
    low, high = sorted(_luminance(color) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * c for c in color[1:])
    channels = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

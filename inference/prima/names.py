"""Series names as the model reads them, and texts as codes of its 46 characters."""

from __future__ import annotations

import re
import string
import unicodedata

import numpy as np
import numpy.typing as npt

ALPHABET = string.ascii_lowercase + "_+-" + string.digits + ".*(),"
UNKNOWN, END = 45, 46
MAX_CODES = 200
"""Rows of the model's position table, the end code included."""

_CODES = {character: code for code, character in enumerate(ALPHABET, start=1)}


def series_name(description: str, protocol: str, series_uid: str) -> str:
    """The name of a series from SeriesDescription, ProtocolName and SeriesInstanceUID."""
    described, planned = _plain(description), _plain(protocol)
    if described and planned and described != planned:
        return f"{described}-{planned}-Protocol"
    if described:
        return described
    return f"{planned}-Protocol" if planned else f"UNK-{series_uid}"


def char_codes(text: str) -> npt.NDArray[np.int64]:
    """Codes of a text: 1 to 44 the alphabet, 45 any other character, 46 the end, once.

    Texts too long for the model's table lose their end; the reference fails on them.
    """
    codes = [_CODES.get(character, UNKNOWN) for character in text.lower()]
    return np.array([*codes[: MAX_CODES - 1], END], dtype=np.int64)


def natural_key(text: str) -> tuple[str | int, ...]:
    """Sort key under which numbers in a text count by value: "2_ax" before "10_sag"."""
    parts = re.split(r"(\d+)", unicodedata.normalize("NFD", text))
    # Texts and numbers alternate, a text first, so that any two keys can be compared.
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts))


def _plain(text: str) -> str:
    named = text.replace("+", "_plus_").replace("*", "_star_")
    return re.sub(r"[^a-zA-Z0-9]", "_", named)

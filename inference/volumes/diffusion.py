"""The diffusion b-value of a classic MR image, standard or in the vendors' private elements."""

from __future__ import annotations

import struct
from typing import Any

from pydicom.dataset import Dataset
from pydicom.tag import Tag

SIEMENS = Tag(0x0019, 0x100C)
GE = Tag(0x0043, 0x1039)
PHILIPS = Tag(0x2001, 0x1003)
VENDOR_TAGS: tuple[Any, ...] = (
    # The private creators are what makes the elements below readable.
    Tag(0x0019, 0x0010),
    Tag(0x0043, 0x0010),
    Tag(0x2001, 0x0010),
    SIEMENS,
    GE,
    PHILIPS,
)
GE_OFFSET = 1_000_000_000
"""GE adds this to the b-value of some releases."""


def b_value(ds: Dataset) -> float | None:
    """The b-value in s/mm2, or None when the image says nothing about diffusion."""
    standard = ds.get("DiffusionBValue")
    if standard is not None:
        return _first(standard)
    for tag in (SIEMENS, PHILIPS, GE):
        if tag in ds:
            value = _first(ds[tag].value)
            if value is not None:
                return value % GE_OFFSET if tag == GE else value
    return None


def _first(value: Any) -> float | None:
    """The first number of whatever a private element turned into."""
    if isinstance(value, bytes):
        text = value.strip(b"\0 ")
        if len(value) in (4, 8) and not text.replace(b"\\", b"").replace(b".", b"").isdigit():
            value = struct.unpack("<f" if len(value) == 4 else "<d", value)[0]
        else:
            value = text.split(b"\\")[0].decode("ascii", "replace")
    elif not isinstance(value, (str, int, float)) and hasattr(value, "__getitem__"):
        value = value[0] if len(value) else None
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None

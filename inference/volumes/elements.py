"""Read elements that may be absent, empty, of another count or not what they should be."""

from __future__ import annotations

import math

from pydicom.dataset import Dataset

Floats = tuple[float, ...]


def numbers(ds: Dataset, keyword: str, count: int) -> Floats | None:
    """`count` finite numbers, or None when absent, empty, of another count or not numbers."""
    try:
        value = ds.get(keyword)
        if value is None or isinstance(value, str):
            return None
        found = tuple(float(v) for v in value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def number(ds: Dataset, keyword: str) -> float | None:
    """One finite number, or None."""
    try:
        value = ds.get(keyword)
        found = None if value is None or value == "" else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found is not None and math.isfinite(found) else None


def integer(ds: Dataset, keyword: str) -> int | None:
    """One whole number, or None."""
    found = number(ds, keyword)
    return None if found is None else int(found)


def texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """All values as upper-case texts."""
    value = ds.get(keyword)
    if value is None or value == "":
        return ()
    values = [value] if isinstance(value, str) else list(value)
    return tuple(str(v).strip().upper() for v in values)

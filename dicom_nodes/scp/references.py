"""Lists of instances by series, as performed steps and availability notices carry them. Bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from dicom_nodes import identifiers

MAX_SERIES = 2_000
MAX_INSTANCES = 50_000
#: Longest encoded attribute list that is decoded at all: 50 000 references are about 8 MB.
MAX_ENCODED_BYTES = 16 * 2**20


class ReferencesError(ValueError):
    """The list cannot be taken; says why, without values."""


@dataclass(frozen=True)
class SeriesReferences:
    """Instances of one series."""

    series_uid: str
    sop_uids: tuple[str, ...]


def read(
    series: Sequence[Dataset] | None, keywords: Sequence[str], *, skip: frozenset[str] = frozenset()
) -> tuple[SeriesReferences, ...]:
    """Read a sequence of series, each with one or more sequences of references.

    Args:
        series: the items, each with a Series Instance UID.
        keywords: the sequences inside an item that hold the references.
        skip: values of Instance Availability that do not count.

    Raises:
        ReferencesError: too many, or an identifier is too long.
    """
    items = series or ()
    if len(items) > MAX_SERIES:
        raise ReferencesError(f"more than {MAX_SERIES} series")
    found, total = [], 0
    for item in items:
        uids = tuple(_instances(item, keywords, skip))
        total += len(uids)
        if total > MAX_INSTANCES:
            raise ReferencesError(f"more than {MAX_INSTANCES} instances")
        found.append(SeriesReferences(uid(item, "SeriesInstanceUID"), uids))
    return tuple(found)


def uid(ds: Dataset, keyword: str) -> str:
    """An identifier without padding; empty when absent.

    Raises:
        ReferencesError: it is longer than can be kept.
    """
    value = str(ds.get(keyword) or "").strip(" \0")
    if len(value) > identifiers.MAX_STORED_UID:
        raise ReferencesError("an identifier is too long")
    return value


def is_too_long(encoded: Any) -> bool:
    """Whether an attribute list (a stream as pynetdicom holds it) is beyond what we decode."""
    return encoded is not None and len(encoded.getbuffer()) > MAX_ENCODED_BYTES


def _instances(item: Dataset, keywords: Sequence[str], skip: frozenset[str]) -> list[str]:
    uids = dict.fromkeys(
        uid(reference, "ReferencedSOPInstanceUID")
        for keyword in keywords
        for reference in item.get(keyword) or ()
        if str(reference.get("InstanceAvailability") or "").strip() not in skip
    )
    return [one for one in uids if one]

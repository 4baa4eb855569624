"""Recognize results of this agent that a PACS sends back, so that they never trigger analysis.

Works on any header that has the elements below: a pydicom Dataset, or anything with ``get``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent.results import context as contexts

KEYWORDS = (
    "DeviceUID",
    "Manufacturer",
    "ManufacturerModelName",
    "ContributingEquipmentSequence",
)
"""What a header must have been read with for `is_own_result` to see everything."""


def is_own_result(header: Any, device_uid: str, product: str = "") -> bool:
    """Whether an instance was made by this installation, or by the same product elsewhere.

    Device UID (0018,1002) of the equipment that made it, or of equipment that contributed to it.
    An archive may drop the first, an anonymizer may replace both, so manufacturer and model name
    together count as well: another installation's results must not trigger us either.

    Args:
        header: the instance's dataset or header.
        device_uid: Device UID of this installation.
        product: our ManufacturerModelName; empty to go by the Device UID alone.
    """
    if device_uid and _text(header, "DeviceUID") == device_uid:
        return True
    if product and _made_by(header, product):
        return True
    contributed: Iterable[Any] = header.get("ContributingEquipmentSequence") or ()
    return any(
        (device_uid and _text(item, "DeviceUID") == device_uid)
        or (product and _made_by(item, product))
        for item in contributed
    )


def own_series_uids(analysis_id: str, labels: Iterable[str]) -> frozenset[str]:
    """Every Series Instance UID that an analysis can have given its results.

    For when only identifiers are at hand (a C-FIND answer, a count): `labels` are those of the
    pack's findings.
    """
    located = [(kind, label) for kind in ("seg", "pm") for label in labels]
    pairs = [("sr", ""), ("sc", ""), *located]
    return frozenset(contexts.uid_for(analysis_id, "series", *pair) for pair in pairs)


def _made_by(header: Any, product: str) -> bool:
    return all(_text(header, name) == product for name in ("Manufacturer", "ManufacturerModelName"))


def _text(header: Any, keyword: str) -> str:
    return str(header.get(keyword) or "").strip()

"""What a pack says of a label: from the published lists, a file of the site, or its bare name."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference.errors import InputError
from inference.findings import Acuity, Code
from inference.manifest import Label
from inference.neurovfm.labels import published
from training.data.errors import DataError

LOCAL_SCHEME = "99LOCAL"


def read_wording(file: Path) -> dict[str, Label]:
    """Labels of a TOML file: ``[[labels]]`` with id, display, acuity, code and localized.

    Raises:
        DataError: a key is missing or wrong; the message names the label.
    """
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    found = {}
    for entry in data.get("labels", []):
        try:
            found[entry["id"]] = _label(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{file.name}: label {entry.get('id', '?')!r}: {error}") from error
    return found


def worded(
    ids: Sequence[str],
    modality: str,
    thresholds: Mapping[str, float],
    site: Mapping[str, Label] | None = None,
) -> tuple[Label, ...]:
    """The labels of a head in order; one that nobody described is routine and coded 99LOCAL."""
    return tuple(_worded(name, modality, thresholds[name], site or {}) for name in ids)


def _worded(name: str, modality: str, threshold: float, site: Mapping[str, Label]) -> Label:
    if name in site:
        known = site[name]
        return Label(
            name, known.display, known.acuity, threshold, known.code, known.localized, known.site
        )
    for label in _published(modality):
        if label.id == name:
            return Label(name, label.display, label.acuity, threshold, label.code, label.localized)
    display = name.replace("_", " ").capitalize()
    value = f"L{hashlib.sha256(name.encode()).hexdigest()[:12].upper()}"
    return Label(name, display, Acuity.ROUTINE, threshold, Code(value, LOCAL_SCHEME, display))


def _published(modality: str) -> Sequence[Any]:
    try:
        return published(modality)
    except InputError:
        return ()


def _label(entry: Mapping[str, Any]) -> Label:
    return Label(
        id=entry["id"],
        display=entry["display"],
        acuity=Acuity(entry["acuity"]),
        threshold=0.5,
        code=Code(**entry["code"]),
        localized=bool(entry.get("localized", True)),
        site=Code(**entry["site"]) if entry.get("site") else None,
    )

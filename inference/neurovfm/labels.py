"""The labels of the published heads: names, acuity and codes, in the order of the outputs."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from inference.errors import InputError
from inference.findings import Acuity, Code

_FILES = {"CT": "labels_ct.toml", "MR": "labels_mri.toml"}


@dataclass(frozen=True)
class Label:
    """One output of a diagnostic head.

    Attributes:
        id: the published identifier.
        display: what a user reads.
        acuity: how fast a human should look.
        code: SNOMED CT where a dictionary has exactly this meaning, else 99NEUROVFM.
        localized: False for findings of the whole brain.
    """

    id: str
    display: str
    acuity: Acuity
    code: Code
    localized: bool


@cache
def published(modality: str) -> tuple[Label, ...]:
    """Labels of the published CT or MR head.

    Raises:
        InputError: neither CT nor MR.
    """
    file = _FILES.get(modality.upper().removesuffix("I"))
    if file is None:
        raise InputError(f"modality {modality!r} has no published labels: it is CT or MR")
    text = resources.files(__package__).joinpath(file).read_text(encoding="utf-8")
    return tuple(_label(entry) for entry in tomllib.loads(text)["labels"])


def names_by_count(count: int) -> tuple[str, ...]:
    """Identifiers for a head of `count` outputs: the published ones, else numbers.

    The reference guesses by letters in the path ("/project/" holds "ct"); the numbers of outputs
    of the two heads differ, so they tell which one it is.
    """
    for modality in _FILES:
        labels = published(modality)
        if len(labels) == count:
            return tuple(label.id for label in labels)
    return tuple(f"label_{index}" for index in range(count))


def _label(entry: dict[str, Any]) -> Label:
    return Label(
        id=entry["id"],
        display=entry["display"],
        acuity=Acuity(entry["acuity"]),
        code=Code(**entry["code"]),
        localized=entry["localized"],
    )

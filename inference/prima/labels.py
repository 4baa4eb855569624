"""The published diagnoses and referrals: names, acuity and codes, in the order of the heads."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from inference.findings import Acuity, Code
from inference.manifest import HeadKind

SCHEME = "99PRIMA"
_TABLES = {HeadKind.DIAGNOSES: "diagnoses", HeadKind.REFERRAL: "referrals"}


@dataclass(frozen=True)
class Label:
    """What one head answers.

    Attributes:
        id: the published identifier.
        display: what a user reads.
        acuity: how fast a human should look.
        code: SNOMED CT where a dictionary has exactly this meaning, else 99PRIMA.
        localized: False for findings of the whole brain, and for referrals.
    """

    id: str
    display: str
    acuity: Acuity
    code: Code
    localized: bool


@cache
def published(kind: HeadKind) -> tuple[Label, ...]:
    """Published labels of a kind; none for priority, whose outputs have levels instead."""
    text = resources.files(__package__).joinpath("labels.toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text).get(_TABLES.get(kind, ""), [])
    return tuple(_label(entry) for entry in entries)


def describe(name: str, kind: HeadKind) -> Label:
    """The published label of this name, else a routine one made from the name alone."""
    for label in published(kind):
        if label.id == name:
            return label
    words = name.replace("_", " ").strip()
    referral = kind is HeadKind.REFERRAL
    display = (f"Referral to {words}" if referral else words.capitalize())[:64]
    # The same name has the same value in every pack, whatever stands beside it.
    value = f"P{hashlib.sha256(f'{kind} {name}'.encode()).hexdigest()[:10].upper()}"
    return Label(name, display, Acuity.ROUTINE, Code(value, SCHEME, display), not referral)


def _label(entry: dict[str, Any]) -> Label:
    return Label(
        id=entry["id"],
        display=entry["display"],
        acuity=Acuity(entry["acuity"]),
        code=Code(**entry["code"]),
        localized=entry["localized"],
    )

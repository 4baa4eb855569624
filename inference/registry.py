"""The model families: which functions load a pack and analyse with it, imported on first use."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from inference.errors import PackError


@dataclass(frozen=True)
class Family:
    """Where a family's functions are, as "module:function".

    Attributes:
        load: (directory, manifest, device) -> loaded pack; raises PackError.
        analyse: (study, loaded pack, device, progress, scale) -> Findings; `scale` below 1 asks
            for less memory at a time.
        analyse_many: (studies, loaded pack, device, progress, scale) -> list of Findings, or of the
            exception of a study that failed; empty where the family analyses one at a time.
        explain: (study, loaded pack, findings, options, progress, scale) -> Findings with
            groundings; empty where analysing gives them, or nothing can.
    """

    load: str
    analyse: str
    analyse_many: str = ""
    explain: str = ""


FAMILIES = {
    "neurovfm": Family(
        load="inference.neurovfm.loading:load",
        analyse="inference.neurovfm.analyse:analyse",
        analyse_many="inference.neurovfm.analyse:analyse_many",
    ),
    "prima": Family(
        load="inference.prima.loading:load",
        analyse="inference.prima.analyse:analyse",
        explain="inference.prima.explaining:explain_findings",
    ),
}

VISUAL_TOKENS = "inference.report.tokens:visual_tokens"
"""(study, loaded pack, device, progress, scale) -> VisualTokens, for packs that draft reports."""


def family(name: str) -> Family:
    """The family that a pack.toml names.

    Raises:
        PackError: there is none of this name.
    """
    if name not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise PackError(f"family {name!r} is not known; this version reads {known}")
    return FAMILIES[name]


def resolve(target: str) -> Callable[..., Any]:
    """Import the function that "module:function" names."""
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found

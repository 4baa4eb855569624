"""Every drafted sentence is held against what the heads found, where the guard is installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import cast

from inference.findings import Findings
from inference.report.draft import ClinicalContext, Draft

GUARD = "inference.report.guard"
Guard = Callable[[Draft, Sequence[Findings], ClinicalContext], Draft]


def guard() -> Guard:
    """The guard of this installation; without one every sentence stays unchecked, and says so."""
    if importlib.util.find_spec(GUARD) is None:
        return unchecked
    return cast("Guard", importlib.import_module(GUARD).check)


def unchecked(draft: Draft, _findings: Sequence[Findings], _context: ClinicalContext) -> Draft:
    """The draft as it was written."""
    return draft

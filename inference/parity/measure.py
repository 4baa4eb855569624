"""Walks every golden case that is there, family by family."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from inference.parity.rows import Chapter, Row

FAMILIES = ("inference.neurovfm.parity", "inference.report.parity", "inference.prima.parity")
"""Modules with `MEASURES` (golden case -> Measure) and `CHAPTERS`, imported when asked for."""


def measure(golden_root: Path) -> list[Row]:
    """Compare with every case of a golden set that is there.

    Raises:
        FileNotFoundError: the set holds none of the cases.
    """
    rows: list[Row] = []
    known = []
    for family in _families():
        for case, walk in family.MEASURES.items():
            known.append(case)
            meta = golden_root / case / "meta.json"
            if meta.is_file():
                rows += walk(golden_root / case, json.loads(meta.read_text(encoding="utf-8")))
    if not rows:
        raise FileNotFoundError(f"no golden case ({', '.join(known)}) in the given folder")
    return rows


def chapters() -> list[Chapter]:
    """Where we differ on purpose, of every family."""
    return [chapter for family in _families() for chapter in family.CHAPTERS]


def _families() -> list[Any]:
    return [importlib.import_module(name) for name in FAMILIES]

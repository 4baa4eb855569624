"""Numbers made with the reference code: where they lie and how their tolerances read.

`WORKLIST_AGENT_GOLDEN` names another set; without it a `shared/golden` beside the repository is
taken if there is one, else the subset that is committed.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_REPOSITORY = Path(__file__).resolve().parents[2]
COMMITTED = _REPOSITORY / "tests" / "golden" / "data"


def root() -> Path:
    """The golden set of this run."""
    named = os.environ.get("WORKLIST_AGENT_GOLDEN")
    if named:
        return Path(named).resolve()
    beside = _REPOSITORY.parent / "shared" / "golden"
    return beside if (beside / "INDEX.json").is_file() else COMMITTED


def case(name: str) -> Path:
    """The folder of one golden case, e.g. ``n1_preprocess``."""
    return root() / name


def meta(name: str) -> dict[str, Any]:
    """What a golden case says of itself."""
    text = (case(name) / "meta.json").read_text(encoding="utf-8")
    read: dict[str, Any] = json.loads(text)
    return read


def arrays(file: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an npz file."""
    with np.load(file) as data:
        return {key: data[key] for key in data.files}


def tolerance(text: str) -> dict[str, float]:
    """Read "rtol 1e-4, atol 2e-5 (fp32)" as numpy's keyword arguments; what is unsaid is 0."""
    found = {k: float(v) for k, v in re.findall(r"(rtol|atol)\s+([0-9.e-]+)", text)}
    return {"rtol": found.get("rtol", 0.0), "atol": found.get("atol", 0.0)}

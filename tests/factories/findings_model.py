"""The tiny findings model of golden case n4_vlm, and made-up visual tokens and findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from factories import golden

from inference.findings import Acuity, Code, Finding, Findings, PackRef, SeriesReport, Status
from inference.report import parity
from inference.report.prompt import PromptStyle
from inference.report.tokens import VisualTokens

CASE = golden.case("n4_vlm")
META = golden.meta("n4_vlm")
LANGUAGE_MODEL = CASE / "checkpoint" / "language_model"
STYLE: PromptStyle = parity.read_style(META)
PACK = PackRef("heads", "1.0.0", "d" * 64, "MIT", "Research use only.")


def checkpoint(place: Path) -> Path:
    """The official directory, with what a compact golden set leaves out put together in `place`."""
    return parity.complete_checkpoint(CASE, place)


def visual(series: int = 3, width: int = 64, queries: int = 8) -> VisualTokens:
    """Random visual tokens."""
    values = np.random.default_rng(series).normal(size=(series, queries, width))
    return VisualTokens(tuple(f"1.2.{n}" for n in range(series)), values.astype(np.float32))


def as_official(folder: Path, source: Path, **changes: Any) -> Path:
    """A copy of an official directory (by links) whose config.json has these keys changed."""
    folder.mkdir()
    for item in source.iterdir():
        if item.name != "config.json":
            (folder / item.name).symlink_to(item.resolve())
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
    return folder


def rewrite(file: Path, state: dict[str, torch.Tensor]) -> None:
    """Put other weights in place of a linked file."""
    file.unlink()
    torch.save({"state_dict": state}, file)


def finding(label: str, probability: float, **changes: Any) -> Finding:
    """A finding with threshold 0.5; any field can be changed."""
    fields: dict[str, Any] = {
        "label": label,
        "display": label.replace("_", " ").capitalize(),
        "code": Code(label, "99TEST", label),
        "acuity": Acuity.ROUTINE,
        "probability": probability,
        "threshold": 0.5,
    }
    return Finding(**{**fields, **changes})


def findings(*found: Finding, **changes: Any) -> Findings:
    """One analysis that succeeded, with one series read; any field can be changed."""
    fields: dict[str, Any] = {
        "study_uid": "1.2.3",
        "status": Status.SUCCEEDED,
        "pack": PACK,
        "findings": found,
        "series": (SeriesReport("1.2.0", "CT", "", used=True),),
    }
    return Findings(**{**fields, **changes})

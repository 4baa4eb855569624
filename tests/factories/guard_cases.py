"""The guard's table of cases: studies with known findings, sentences, and the verdict they want."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from inference import packs
from inference.findings import (
    Acuity,
    Code,
    Finding,
    Findings,
    Grounding,
    PackRef,
    SeriesReport,
    Status,
)
from inference.manifest import HeadKind
from inference.neurovfm import labels as neurovfm
from inference.prima import labels as prima
from inference.report.draft import ClinicalContext, Draft, Sentence, Source, Verdict

FOLDER = Path(__file__).parents[1] / "unit" / "inference" / "report" / "guard_cases"
DEMO_PACK = Path(packs.__file__).parent / "demo_pack"
CONTRAST = {"yes": True, "no": False, "unknown": None}
#: Places on a grid of 2 x 2 x 8 tokens, 20 mm apart along x, symmetric about x = 0.
PLACES = {"left": [6, 7], "right": [0, 1], "both": [1, 6], "middle": []}
PRESENT, ABSENT = 0.93, 0.04


@dataclass(frozen=True)
class Scene:
    """What the guard is given beside the sentence."""

    findings: tuple[Findings, ...]
    context: ClinicalContext


@dataclass(frozen=True)
class Case:
    """A sentence about a scene, and the verdict it deserves."""

    scene: str
    text: str
    verdict: Verdict
    about: str


def cases(half: str) -> list[Case]:
    """The cases of a part: ``seen``, ``unseen`` or ``others``."""
    rows = tomllib.loads((FOLDER / f"{half}.toml").read_text(encoding="utf-8"))["cases"]
    return [Case(scene, text, Verdict(verdict), about) for scene, text, verdict, about in rows]


@cache
def scene(name: str) -> Scene:
    """A study of scenes.toml."""
    entry = tomllib.loads((FOLDER / "scenes.toml").read_text(encoding="utf-8"))[name]
    context = ClinicalContext(
        modality=entry["modality"],
        indication=entry.get("indication", ""),
        age_years=entry.get("age"),
        sex=entry.get("sex", ""),
        series=tuple(entry["series"]),
        contrast=CONTRAST[entry["contrast"]],
    )
    return Scene(tuple(_analysis(h, entry["present"]) for h in entry["heads"]), context)


def draft(*texts: str, source: Source = Source.MODEL, exam_type: str = "") -> Draft:
    """What a model wrote."""
    return Draft(exam_type, tuple(Sentence(text) for text in texts), source, "writer 1")


def analysis(findings: Sequence[Finding], pack: str = "heads") -> Findings:
    """An analysis that came to an end."""
    reference = PackRef(pack, "1", "0" * 64, "none", "Research use only.")
    series = (SeriesReport("1.2.3", "CT", "", used=True),)
    return Findings("1.2", Status.SUCCEEDED, reference, tuple(findings), series)


def finding(label: str, display: str, place: str = "", *, localized: bool = True) -> Finding:
    """A label: present at a place (``nowhere`` = not grounded), or absent when empty."""
    return Finding(
        label=label,
        display=display,
        code=Code(label, "99TEST", display),
        acuity=Acuity.URGENT,
        probability=PRESENT if place else ABSENT,
        threshold=0.5,
        grounding=grounding(place) if localized and place in PLACES else None,
    )


def grounding(place: str) -> Grounding:
    """Attention at one of `PLACES`."""
    saliency = np.zeros((2, 2, 8), np.float32)
    saliency[..., PLACES[place]] = 1.0
    matrix = np.zeros((4, 4))
    matrix[0, 2], matrix[1, 1], matrix[2, 0], matrix[3, 3] = 20.0, 20.0, 5.0, 1.0
    matrix[0, 3] = -70.0
    if place == "middle":
        saliency[..., 3:5] = 1.0
        matrix[0, 2], matrix[0, 3] = 4.0, -14.0
    return Grounding("1.2.3", saliency, matrix, 0.5, "1.2.3.4")


def published(head: str) -> Mapping[str, str]:
    """Display names of a head's labels by id."""
    if head == "prima":
        return {label.id: label.display for label in prima.published(HeadKind.DIAGNOSES)}
    family, modality = head.split("_")
    if family == "neurovfm":
        return {label.id: label.display for label in neurovfm.published(modality.upper())}
    return _demo(modality)


def _demo(modality: str) -> dict[str, str]:
    manifest: dict[str, Any] = tomllib.loads((DEMO_PACK / "pack.toml").read_text(encoding="utf-8"))
    heads = [head for head in manifest["heads"] if head["name"] == modality]
    return {label["id"]: label["display"] for head in heads for label in head["labels"]}


def _analysis(head: str, present: Mapping[str, str]) -> Findings:
    names = published(head)
    return analysis([finding(i, d, present.get(i, "")) for i, d in names.items()], head)

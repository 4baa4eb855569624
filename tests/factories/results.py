"""Result contexts for tests: one analysis of a small study with chosen findings."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from factories import dicom
from pydicom.dataset import Dataset

from agent.results.context import Installation, PriorityStatement, ResultContext
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
from inference.study import SeriesInput

CREATED = dt.datetime(2026, 11, 1, 9, 15, 30, tzinfo=dt.UTC)
PACK = PackRef("demo-head", "1.0.0", "ab" * 32, "MIT", "Demonstration only, research use.")
INSTALLATION = Installation(
    device_uid=dicom.uid("device"),
    product="worklist-agent",
    version="0.1.0",
    node_name="node-1",
    institution="Example Hospital",
    station="AI1",
)
HEMORRHAGE = Code("1386000", "SCT", "Intracranial hemorrhage")
CODES = {"hemorrhage": HEMORRHAGE, "mass_effect": Code("mass_effect", "99DEMO", "Mass effect")}
"""A standard code, a pack's private code; other labels have none."""
TARGET_MM = (22.0, -18.0, 6.0)
"""Where `grounding` puts its peak (LPS)."""


def source(datasets: Sequence[Dataset], folder: Path) -> SeriesInput:
    """Write a series and describe it as the analysis would have been given it."""
    first = datasets[0]
    return SeriesInput(
        series_uid=str(first.SeriesInstanceUID),
        modality=str(first.Modality),
        description=str(first.get("SeriesDescription", "")),
        files=dicom.save_all(datasets, folder / str(first.SeriesInstanceUID)),
    )


def token_grid(token_mm: float = 16.0, size: int = 12) -> npt.NDArray[np.float64]:
    """Affine of a cubic token grid around (0, 0, 0), its axes those of the patient (z, y, x)."""
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = token_mm
    affine[:3, 3] = -token_mm * (size - 1) / 2
    affine[3, 3] = 1.0
    return affine


def grounding(
    series: Sequence[Dataset],
    center: Sequence[float] = TARGET_MM,
    *,
    token_mm: float = 8.0,
    size: int = 24,
    sigma_mm: float = 10.0,
    key_index: int | None = None,
    **changes: Any,
) -> Grounding:
    """Saliency that falls off as a Gaussian around `center`; 1 at the nearest token."""
    affine = token_grid(token_mm, size)
    points = dicom.voxel_positions(affine, (size, size, size))
    distance = np.linalg.norm(points - np.asarray(center), axis=-1)
    saliency = np.exp(-0.5 * (distance / sigma_mm) ** 2).astype(np.float32)
    saliency /= saliency.max()
    index = len(series) // 2 if key_index is None else key_index
    fields: dict[str, Any] = {
        "series_uid": str(series[0].SeriesInstanceUID),
        "saliency": saliency,
        "grid_to_patient": affine,
        "threshold": 0.5,
        "key_sop_uid": str(series[min(index, len(series) - 1)].SOPInstanceUID),
        "key_frame": 1,
    }
    return Grounding(**{**fields, **changes})


def finding(label: str = "hemorrhage", probability: float = 0.93, **changes: Any) -> Finding:
    """A finding; present by default."""
    fields: dict[str, Any] = {
        "label": label,
        "display": label.replace("_", " ").capitalize(),
        "code": CODES.get(label, Code("", "", "")),
        "acuity": Acuity.URGENT,
        "probability": probability,
        "threshold": 0.5,
    }
    return Finding(**{**fields, **changes})


def findings(
    study_uid: str,
    found: Sequence[Finding] = (),
    *,
    status: Status = Status.SUCCEEDED,
    reports: Sequence[SeriesReport] = (),
    reason: str = "",
) -> Findings:
    """The answer of one analysis."""
    return Findings(
        study_uid=study_uid,
        status=status,
        pack=PACK,
        findings=tuple(found),
        series=tuple(reports),
        reason=reason,
        device="cpu",
    )


def report(series: SeriesInput, **changes: Any) -> SeriesReport:
    """What became of a series; read by default."""
    fields: dict[str, Any] = {
        "series_uid": series.series_uid,
        "modality": series.modality,
        "description": series.description,
        "used": True,
        "slices": len(series.files),
    }
    return SeriesReport(**{**fields, **changes})


def context(
    answer: Findings, sources: Sequence[SeriesInput], analysis_id: str = "0a" * 16, **changes: Any
) -> ResultContext:
    """A context of revision 1 with a STAT priority; any field can be changed."""
    fields: dict[str, Any] = {
        "analysis_id": analysis_id,
        "revision": 1,
        "created_at": CREATED,
        "findings": answer,
        "priority": PriorityStatement("STAT", 0.93, "Hemorrhage 93% (urgent)", "MEDIUM"),
        "sources": tuple(sources),
        "installation": INSTALLATION,
    }
    return ResultContext(**{**fields, **changes})


def positive(
    datasets: Sequence[Dataset],
    folder: Path,
    *,
    ground: dict[str, Any] | None = None,
    **changes: Any,
) -> ResultContext:
    """One located hemorrhage and two absent labels in a series written to `folder`."""
    series = source(datasets, folder)
    located = grounding(datasets, **(ground or {}))
    found = (
        finding(grounding=located),
        finding("infarct", 0.12),
        finding("mass_effect", 0.07, acuity=Acuity.ROUTINE),
    )
    answer = findings(str(datasets[0].StudyInstanceUID), found, reports=[report(series)])
    return context(answer, [series], **changes)

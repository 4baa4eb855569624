"""What result objects are made from, and the identifiers they will carry. Plain values, no DICOM.

Every UID and every date follows from the context, so composing it again, on a retry or after a
restart, gives the same bytes and a destination never sees two reports of one analysis.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.findings import Finding, Findings, SeriesReport
from inference.report.draft import Draft
from inference.study import SeriesInput

KINDS = ("sr", "sc", "seg", "pm")
"""Every kind of result object, in the order of delivery: routing rules read the SR first."""
EDITIONS = ("", "draft", "triage")
"""Reports of one analysis, each replaces those before it: the first, with a model's draft, and with
a triage that changed the priority."""
NAMESPACE = uuid.UUID("5c1f2d3e-0b8a-5d7f-9a44-2f6d1c7b9e10")
"""Never change: the UIDs of everything already delivered depend on it."""


@dataclass(frozen=True)
class PriorityStatement:
    """The reading priority as the report states it.

    Attributes:
        level: STAT, HIGH, MEDIUM or LOW.
        score: probability of the finding that decided, 0..1.
        reason: one sentence for the reader.
        ordered: the level that was ordered, None when the order says nothing.
        voices: what each model and head said of it, one line each; empty when one spoke.
        disagreement: how they differ; empty when they agree.
    """

    level: str
    score: float
    reason: str
    ordered: str | None = None
    voices: tuple[str, ...] = ()
    disagreement: str = ""


@dataclass(frozen=True)
class Installation:
    """The device that makes the results.

    Attributes:
        device_uid: Device UID (0018,1002) of this installation; stays the same over updates.
        product: ManufacturerModelName of everything we write.
        version: version of the application.
        node_name: DeviceSerialNumber and observer name, tells installations apart for humans.
    """

    device_uid: str
    product: str
    version: str
    node_name: str
    institution: str = ""
    station: str = ""


@dataclass(frozen=True)
class ResultOptions:
    """Which objects are made, and limits that keep them storable.

    Attributes:
        max_segments: grounded findings that get a SEG and a map, most probable first.
        max_frames: a source stack with more frames gets no SEG and no map.
        map_pixels: longer side of a map frame; attention is known per token, so a source matrix
            of 512 would repeat every value hundreds of times and weigh 1 MiB a slice.
        unsupported_sentences: write drafted sentences, too, that the guard found unsupported.
    """

    kinds: tuple[str, ...] = KINDS
    max_segments: int = 8
    max_frames: int = 2000
    map_pixels: int = 128
    unsupported_sentences: bool = False


@dataclass(frozen=True)
class ResultContext:
    """One analysis of one study revision, with all that its result objects say.

    Attributes:
        analysis_id: hex identifier of the analysis; a re-analysis has another one.
        revision: study revision that was analysed, from 1.
        created_at: when the analysis ended. Its own wall clock is written, unless the source
            series state their offset from UTC (then it is converted to that).
        sources: the source series; those the models read are listed as evidence.
        predecessors: earlier SR files of this study that this one replaces.
        provisional: the study was not complete when it was analysed.
        draft: the drafted report that the SR carries as its narrative.
        edition: which report of this analysis it is, see `EDITIONS`.
        comparison: what changed since an earlier study, in words; empty without one.
    """

    analysis_id: str
    revision: int
    created_at: dt.datetime
    findings: Findings
    priority: PriorityStatement
    sources: tuple[SeriesInput, ...]
    installation: Installation
    predecessors: tuple[Path, ...] = ()
    options: ResultOptions = field(default_factory=ResultOptions)
    provisional: bool = False
    draft: Draft | None = None
    edition: str = ""
    comparison: str = ""

    def uid(self, role: str, kind: str, label: str = "") -> str:
        """The UID of something in this analysis, e.g. ``uid("series", "seg", "hemorrhage")``."""
        return uid_for(self.analysis_id, role, kind, label)

    @property
    def grounded(self) -> tuple[Finding, ...]:
        """Findings that get a SEG and a map: above threshold, located, most probable first."""
        located = [f for f in self.findings.positives if f.grounding is not None]
        return tuple(located[: self.options.max_segments])

    @property
    def used_series(self) -> tuple[SeriesReport, ...]:
        """Reports of the series that the models read."""
        return tuple(s for s in self.findings.series if s.used)


@dataclass(frozen=True)
class ComposedObject:
    """One result object, ready to be written; `dataset` is a pydicom Dataset with file meta."""

    kind: str
    label: str
    sop_class_uid: str
    sop_uid: str
    series_uid: str
    dataset: Any


def uid_for(analysis_id: str, role: str, kind: str, label: str = "") -> str:
    """A UUID-derived UID (PS3.5 B.2) that is always the same for the same analysis."""
    name = "/".join((analysis_id, role, kind, label))
    return f"2.25.{uuid.uuid5(NAMESPACE, name).int}"


def model_device_uid(name: str, version: str, digest: str) -> str:
    """Device UID of a model build: changed weights are another device (IHE AIR 6.5.3.1)."""
    return f"2.25.{uuid.uuid5(NAMESPACE, '/'.join(('model', name, version, digest))).int}"

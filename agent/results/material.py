"""What the composers share: the source's headers and frame geometry, each read once.

Pixel data of the source is never held: geometry comes from headers, and the summary page decodes
the one frame it shows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from agent.errors import ComposeError
from agent.results import context as contexts
from agent.results import identity
from inference.errors import VolumeError
from inference.findings import Grounding
from inference.study import SeriesInput
from inference.volumes import Limits, geometry, headers, stacks

REFERENCE = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]


@dataclass(frozen=True)
class SourceStack:
    """The frames a finding was seen in, in order along their normal, and where they lie."""

    frames: tuple[headers.FrameHeader, ...]
    geometry: geometry.StackGeometry
    series_uid: str
    key: int
    """Index of the frame that shows the finding best."""
    header: Dataset
    """Header of the key image, for what differs between the series of a study."""

    @property
    def frame_of_reference_uid(self) -> str:
        """Empty unless all frames share one."""
        uids = {f.frame_of_reference_uid for f in self.frames}
        return uids.pop() if len(uids) == 1 else ""


@dataclass(frozen=True)
class KeyReference:
    """The image that shows a finding best; `frame_number` is 0 for a single-frame image."""

    sop_class_uid: str
    sop_uid: str
    frame_number: int


class Material:
    """Lazily read source of one context; lives as long as its composition."""

    def __init__(self, context: contexts.ResultContext) -> None:
        self.context = context
        self._stacks: dict[tuple[str, str, int], SourceStack | None] = {}

    @functools.cached_property
    def template(self) -> Dataset:
        """Header of a source image: patient, study, scanner.

        Raises:
            ComposeError: no source file is readable, or it is of another study.
        """
        for path in (p for series in self._ordered_sources() for p in sorted(series.files)):
            try:
                ds = pydicom.dcmread(path, stop_before_pixels=True)
            except (InvalidDicomError, OSError):
                continue
            study_uid = identity.valid_uid(ds, "StudyInstanceUID")
            if study_uid != self.context.findings.study_uid:
                raise ComposeError(
                    "a source file belongs to another study than the findings; analyze again"
                )
            return ds
        raise ComposeError(
            "no source image of the analyzed study can be read; was the spool emptied? "
            "Send the study again"
        )

    @functools.cached_property
    def evidence(self) -> tuple[Dataset, ...]:
        """References to the instances of the series that were read (all, when none was)."""
        used = {s.series_uid for s in self.context.used_series}
        listed = [s for s in self.context.sources if s.series_uid in used]
        found = [
            ref
            for series in (listed or self.context.sources)
            for path in sorted(series.files)
            if (ref := _reference(path)) is not None
            and ref.StudyInstanceUID == self.context.findings.study_uid
        ]
        return tuple(found)

    def stack(self, grounding: Grounding) -> SourceStack | None:
        """The stack of frames that holds the grounding's key image; None when it has no place."""
        key = (grounding.series_uid, grounding.key_sop_uid, grounding.key_frame)
        if key not in self._stacks:
            self._stacks[key] = self._find_stack(grounding)
        return self._stacks[key]

    def key_reference(self, grounding: Grounding) -> KeyReference | None:
        """The grounding's key image, if it is among the sources; it needs no geometry."""
        stack = self.stack(grounding)
        if stack is not None:
            frame = stack.frames[stack.key]
            number = frame.frame_number if frame.frames_in_file > 1 else 0
            return KeyReference(frame.sop_class_uid, frame.sop_uid, number)
        for ref in self.evidence:
            if ref.SOPInstanceUID == grounding.key_sop_uid:
                number = grounding.key_frame if grounding.key_frame > 1 else 0
                return KeyReference(str(ref.SOPClassUID), str(ref.SOPInstanceUID), number)
        return None

    def _find_stack(self, grounding: Grounding) -> SourceStack | None:
        series = next(
            (s for s in self.context.sources if s.series_uid == grounding.series_uid), None
        )
        if series is None:
            return None
        found = headers.read_headers(sorted(series.files), Limits())
        wanted = (grounding.key_sop_uid, grounding.key_frame)
        for stack in stacks.split(found.frames):
            identifiers = [(f.sop_uid, f.frame_number) for f in stack.frames]
            if wanted not in identifiers or len(stack.frames) < 2:
                continue
            try:
                shape = geometry.fit(stack.frames)
            except VolumeError:
                return None
            ordered = tuple(stack.frames[i] for i in shape.order)
            key = shape.order.index(identifiers.index(wanted))
            header = pydicom.dcmread(ordered[key].path, stop_before_pixels=True)
            return SourceStack(ordered, shape, grounding.series_uid, key, header)
        return None

    def _ordered_sources(self) -> list[SeriesInput]:
        used = {s.series_uid for s in self.context.used_series}
        return sorted(self.context.sources, key=lambda s: s.series_uid not in used)


def _reference(path: Path) -> Dataset | None:
    try:
        ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(REFERENCE))
    except (InvalidDicomError, OSError):
        return None
    return ds if all(ds.get(keyword) for keyword in REFERENCE) else None

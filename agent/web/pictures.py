"""Slices of a finding's series with the model's attention painted over, rendered once, kept."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent.errors import AgentError
from db.engine import reading
from db.models import Analysis
from db.queries import worklist as queries
from inference.findings import Findings, Grounding
from inference.study import SeriesInput

if TYPE_CHECKING:
    from inference.volumes import Volume

log = structlog.get_logger(__name__)


class PictureError(AgentError):
    """There is no picture of this finding, or it cannot be rendered."""

    permanent = True


@dataclass(frozen=True)
class Slice:
    """A rendered slice, which it is (from 0), of how many, and which shows the finding best."""

    png: bytes
    index: int
    count: int
    key: int


class Pictures:
    """Renders overlays from spool and findings; the default of `WebDependencies.overlay`.

    Attributes:
        spool_dir: instance paths in the database are relative to it.
        results_dir: pictures are kept in ``pictures/`` below it, named by analysis, not by patient.
    """

    def __init__(self, sessions: sessionmaker[Session], spool_dir: Path, results_dir: Path) -> None:
        self._sessions = sessions
        self._spool_dir = spool_dir
        self._cache_dir = results_dir / "pictures"
        # One at a time: a volume may take hundreds of MB, and a page asks for many pictures.
        self._rendering = threading.Lock()
        self._last: tuple[tuple[str, str], Volume, int] | None = None

    def overlay(self, study_id: int, label: str) -> bytes:
        """PNG of the finding's key slice in the study's latest analysis.

        Raises:
            PictureError: no such finding, nothing to show of it, or its images are gone.
        """
        analyses = self._analyses(study_id)
        for analysis in analyses:
            kept = self._place(analysis.id, label)
            if kept.is_file():
                return kept.read_bytes()
        analysis_id, grounding = _source(analyses, label)
        kept = self._place(analysis_id, label)
        with self._rendering:
            if not kept.is_file():
                volume, k = self._volume(study_id, grounding)
                _write(kept, paint(volume, k, grounding))
        return kept.read_bytes()

    def slice(self, study_id: int, label: str, index: int | None, painted: bool) -> Slice:
        """One slice of the series in which the finding is; without `index`, the key slice.

        The volume that was asked for last stays in memory: a reader moves through its slices.

        Raises:
            PictureError: as `overlay`, or there is no such slice.
        """
        analysis_id, grounding = _source(self._analyses(study_id), label)
        with self._rendering:
            if self._last is None or self._last[0] != (analysis_id, label):
                self._last = ((analysis_id, label), *self._volume(study_id, grounding))
            _, volume, key = self._last
            count = len(volume.frames)
            shown = key if index is None else index
            if not 0 <= shown < count:
                raise PictureError(f"the series has slices 0 to {count - 1}")
            kept = self._place(analysis_id, label, f"-{shown}{'' if painted else '-plain'}")
            if not kept.is_file():
                _write(kept, paint(volume, shown, grounding, painted=painted))
        return Slice(kept.read_bytes(), shown, count, key)

    def _analyses(self, study_id: int) -> Sequence[Analysis]:
        with reading(self._sessions) as session:
            analyses = queries.latest_analyses(session, study_id)
        if not analyses:
            raise PictureError("the study has no analysis yet")
        return analyses

    def _place(self, analysis_id: str, label: str, part: str = "") -> Path:
        """Where a picture is kept; retention finds it by the analysis."""
        return self._cache_dir / f"{analysis_id}-{_digest(label)}{part}.png"

    def _volume(self, study_id: int, grounding: Grounding) -> tuple[Volume, int]:
        """The volume that the grounding is about, and its key slice."""
        # numpy, scipy, SimpleITK: not before somebody asks for a picture
        from inference.errors import InferenceError
        from inference.volumes import read_series

        series = self._series(study_id, grounding.series_uid)
        try:
            volumes = read_series(series).volumes
        except (InferenceError, OSError) as error:
            log.warning("picture_failed", error_type=type(error).__name__)
            raise PictureError("the source series cannot be read any more") from error
        for volume in volumes:
            for k, frame in enumerate(volume.frames):
                if (frame.sop_uid, frame.frame_number) == (
                    grounding.key_sop_uid,
                    grounding.key_frame,
                ):
                    return volume, k
        raise PictureError("the key image is not among the received images of its series")

    def _series(self, study_id: int, series_uid: str) -> SeriesInput:
        with reading(self._sessions) as session:
            instances = queries.newest_instances(session, study_id, series_uid)
            modality = queries.series_modality(session, study_id, series_uid)
        if not instances:
            raise PictureError(
                "the source series is not in the spool; retention may have removed it"
            )
        return SeriesInput(
            series_uid=series_uid,
            modality=modality,
            description="",
            files=tuple(self._spool_dir / instance.path for instance in instances),
        )


def paint(volume: Volume, k: int, grounding: Grounding, *, painted: bool = True) -> bytes:
    """Slice `k` of a volume as PNG; the grounding over it unless only anatomy is wanted."""
    from inference.explain import overlay_png, resample_to_volume, window_for

    pixels = volume.array[k]
    (saliency,) = resample_to_volume(
        grounding, volume.affine, (1, *pixels.shape), volume.positions_mm[k : k + 1]
    )
    return overlay_png(
        pixels,
        saliency if painted else saliency * 0,
        window_for(volume.modality, pixels),
        threshold=grounding.threshold,
        pixel_spacing_mm=volume.spacing_mm[1:],
    )


def _source(analyses: Sequence[Analysis], label: str) -> tuple[str, Grounding]:
    """Which of the analyses localizes the finding, and where."""
    for analysis in analyses:
        for finding in Findings.from_json(analysis.findings).findings:
            if finding.label == label and finding.grounding is not None:
                return analysis.id, finding.grounding
    raise PictureError("the latest analysis does not localize such a finding")


def _digest(label: str) -> str:
    """File name part of a label, which may hold any character."""
    return hashlib.sha256(label.encode()).hexdigest()[:16]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)

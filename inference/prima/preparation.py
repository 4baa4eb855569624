"""From a study's files to the series that the networks read, by either set of rules.

`prepare_official` takes a directory of series and gives the published numbers, without the
crashes; `prepare` is the agent's own path, from the spool's files in memory. In both a series that
cannot be read is skipped with its reason, and the study goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the library's own abbreviation
import structlog

from inference.errors import NoVolumeError, VolumeError
from inference.explain.grounding import Source
from inference.findings import SeriesReport
from inference.neurovfm.preprocess import image_from_array
from inference.prima import selection
from inference.prima.filtering import choose_tokens
from inference.prima.series import PrimaSeries, PrimaStudy, Skipped
from inference.prima.volumes import Rules, to_model_space
from inference.study import SeriesInput, StudyInput
from inference.volumes import SeriesVolumes, Volume, read_series
from inference.volumes.model_grid import model_grid

log = structlog.get_logger(__name__)

MAX_TOKENS = 5000
"""Of one volume, before the filter: 312 slices."""
OFFICIAL_DESCRIPTION = "MR BRAIN W CONTRAST"
"""What the published pipeline tells the model where its configuration says nothing."""
DESCRIPTION = "MR BRAIN"
"""What the agent tells it where the study has no StudyDescription."""

Progress = Callable[[str], None]


def prepare_official(
    study_dir: Path, description: str = OFFICIAL_DESCRIPTION, progress: Progress | None = None
) -> PrimaStudy:
    """Read a directory with one sub-directory per series, as the published pipeline does.

    Raises:
        NoVolumeError: no sub-directory holds a readable series.
        FileNotFoundError: there is no such directory.
    """
    tell = progress or (lambda _: None)
    series: list[PrimaSeries] = []
    skipped: list[Skipped] = []
    found = selection.entries(study_dir)
    for number, entry in enumerate(found, start=1):
        tell(f"reading {entry.name} ({number} of {len(found)})")
        try:
            series.append(_official_series(entry))
        except VolumeError as error:
            skipped.append(Skipped(entry.name, str(error)))
            log.info("prima_series_skipped", index=number, reason=str(error))
    if not series:
        reasons = "; ".join(dict.fromkeys(item.reason for item in skipped)) or "it is empty"
        raise NoVolumeError(f"no readable series in the study directory: {reasons}")
    return PrimaStudy(tuple(series), tuple(skipped), description)


def prepare(study: StudyInput, progress: Progress | None = None) -> PrimaStudy:
    """Read a study from the spool; never raises for what it finds there."""
    tell = progress or (lambda _: None)
    series: list[PrimaSeries] = []
    reports: list[SeriesReport] = []
    problems: list[str] = []
    for number, given in enumerate(study.series, start=1):
        tell(f"reading series {number} of {len(study.series)}")
        read = read_series(given, modality=study.modality)
        volumes, refusals = _own_volumes(given, read)
        series += volumes
        report = _report(given, read, volumes, refusals)
        reports.append(report)
        if read.eligible and not report.used:
            problems.append(f"series {number} not read: {report.reason}")
        elif read.eligible and (refusals or not read.complete):
            problems.append(f"series {number} incomplete: {'; '.join(report.warnings)}")
    skipped = [Skipped(report.series_uid, report.reason) for report in reports if not report.used]
    return PrimaStudy(
        tuple(series), tuple(skipped), _description(study), tuple(reports), tuple(problems)
    )


def make_series(
    image: sitk.Image,
    name: str,
    rules: Rules,
    *,
    series_uid: str = "",
    source: Source | None = None,
) -> PrimaSeries:
    """One volume as the networks read it.

    Raises:
        VolumeError: it cannot be read, or is longer than the model takes.
    """
    volume = to_model_space(image, rules)
    patches = volume.patches()
    if len(patches) > MAX_TOKENS:
        raise VolumeError(f"too long: {len(patches)} tokens, the model takes {MAX_TOKENS}")
    values = patches.foreground_percent()
    kept, percent = choose_tokens(values, patches.grid)
    return PrimaSeries(
        name=name,
        patches=patches,
        values=values,
        kept=kept,
        percent=percent,
        grid_to_patient=volume.grid_to_patient(),
        series_uid=series_uid,
        source=source,
    )


def _official_series(entry: Path) -> PrimaSeries:
    if not entry.is_dir():
        raise VolumeError(selection.NO_DIRECTORY)
    files = selection.series_files(entry)
    header = selection.read_header(files[0])
    image = selection.read_image(files)
    return make_series(image, header.name(entry.name), "official", series_uid=header.series_uid)


def _own_volumes(
    given: SeriesInput, read: SeriesVolumes
) -> tuple[list[PrimaSeries], list[tuple[str, str]]]:
    """The series' volumes, and (label, reason) of those that the model cannot take."""
    volumes, refusals = [], []
    for volume in read.volumes:
        try:
            volumes.append(_own_volume(given, volume))
        except VolumeError as error:
            refusals.append((volume.label, str(error)))
    return volumes, refusals


def _own_volume(given: SeriesInput, volume: Volume) -> PrimaSeries:
    _refuse_unreadable(volume)
    grid = model_grid(volume)
    header = selection.read_header(volume.frames[0].path)
    return make_series(
        image_from_array(grid.array, grid.affine, grid.spacing_mm),
        header.name(given.description or given.series_uid),
        "safe",
        series_uid=given.series_uid,
        source=Source.of(given.series_uid, volume),
    )


def _refuse_unreadable(volume: Volume) -> None:
    """What would give numbers without meaning is refused with its reason."""
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
        raise VolumeError("the volume holds values that are no numbers (NaN or infinite)")
    if volume.array.max() <= 0 or volume.array.min() == volume.array.max():
        raise VolumeError("nothing brighter than its surroundings: the volume has no foreground")


def _report(
    given: SeriesInput,
    read: SeriesVolumes,
    volumes: list[PrimaSeries],
    refusals: list[tuple[str, str]],
) -> SeriesReport:
    texts = [f"{label}: {reason}" if label else reason for label, reason in refusals]
    used = bool(volumes)
    return SeriesReport(
        series_uid=given.series_uid,
        modality=given.modality,
        description=given.description,
        used=used,
        reason="" if used else read.skipped_reason or "; ".join(dict.fromkeys(texts)),
        warnings=(*read.warnings, *(texts if used else ())),
        slices=sum(len(item.source.frames) for item in volumes if item.source),
    )


def _description(study: StudyInput) -> str:
    """StudyDescription of the first file that has one."""
    for series in study.series:
        for file in sorted(series.files)[:1]:
            text = selection.read_header(file).study_description.strip()
            if text:
                return text
    return DESCRIPTION

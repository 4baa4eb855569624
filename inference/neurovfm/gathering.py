"""Reads the series of a study into token series, with their places and what became of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from inference.errors import VolumeError
from inference.explain import grounding
from inference.findings import SeriesReport
from inference.neurovfm.loading import LoadedPack
from inference.neurovfm.preprocess import PreparedVolume, preprocess_volume
from inference.neurovfm.tokens import SeriesTokens
from inference.study import SeriesInput, StudyInput
from inference.volumes import SeriesVolumes, Volume, read_series
from inference.volumes.model_grid import model_grid

Progress = Callable[[str], None]


def gather(study: StudyInput, pack: LoadedPack, tell: Progress) -> Gathered:
    """Read and tokenise series by series; voxels are let go as soon as they are tokens."""
    gathered = Gathered()
    for number, series in enumerate(study.series, start=1):
        tell(f"reading series {number} of {len(study.series)}")
        read = read_series(series, modality=study.modality)
        _take(series, read, pack, gathered)
    return gathered


@dataclass(eq=False)
class Gathered:
    """What the series of a study gave, in order."""

    volumes: list[PreparedVolume] = field(default_factory=list)
    sources: list[grounding.Source] = field(default_factory=list)
    reports: list[SeriesReport] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Why eligible series are not, or not wholly, part of the answer."""

    @property
    def parts(self) -> list[SeriesTokens]:
        """The token series of all volumes, as the encoder takes them."""
        return [part for volume in self.volumes for part in volume.series]

    @property
    def token_count(self) -> int:
        """Tokens of all series, all windows together."""
        return sum(volume.token_count for volume in self.volumes)

    @property
    def spans(self) -> list[grounding.TokenSpan]:
        """Where each volume's tokens stand in the study's sequence."""
        spans, start = [], 0
        for volume, source in zip(self.volumes, self.sources, strict=True):
            starts = []
            for part in volume.series:
                starts.append(start)
                start += len(part.tokens)
            first = volume.series[0]
            spans.append(
                grounding.TokenSpan(
                    source, first.coords, first.grid, volume.grid_to_patient, tuple(starts)
                )
            )
        return spans

    @property
    def why_nothing(self) -> str:
        """Why a study without volumes has none."""
        reasons = dict.fromkeys(report.reason for report in self.reports)
        return f"no usable series: {'; '.join(reasons)}" if reasons else "the study has no series"


def _take(series: SeriesInput, read: SeriesVolumes, pack: LoadedPack, gathered: Gathered) -> None:
    number = len(gathered.reports) + 1
    warnings, refusals, slices = list(read.warnings), [], 0
    for volume in read.volumes:
        try:
            prepared = _prepare(volume, pack)
        except VolumeError as error:
            refusals.append(f"{volume.label}: {error}" if volume.label else str(error))
            continue
        gathered.volumes.append(prepared)
        gathered.sources.append(grounding.Source.of(series.series_uid, volume))
        slices += len(volume.frames)
    used = slices > 0
    reason = "" if used else read.skipped_reason or "; ".join(dict.fromkeys(refusals))
    if read.eligible and not used:
        gathered.problems.append(f"series {number} not read: {reason}")
    elif read.eligible and (refusals or not read.complete):
        gathered.problems.append(f"series {number} incomplete: {'; '.join(warnings + refusals)}")
    gathered.reports.append(
        SeriesReport(
            series_uid=series.series_uid,
            modality=series.modality,
            description=series.description,
            used=used,
            reason=reason,
            warnings=(*warnings, *(refusals if used else ())),
            slices=slices,
        )
    )


def _prepare(volume: Volume, pack: LoadedPack) -> PreparedVolume:
    grid = model_grid(volume)
    prepared = preprocess_volume(
        grid.array, grid.affine, volume.modality, spacing_mm=grid.spacing_mm
    )
    position = pack.encoder.model.config.position
    if position is not None and any(
        n > limit for n, limit in zip(prepared.grid, position.limits, strict=True)
    ):
        raise VolumeError(f"larger than the model's field of {list(position.limits)} tokens")
    return prepared

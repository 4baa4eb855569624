"""What preprocessing hands to the networks: a study's series as tokens, and what was left out.

Legend: N all tokens of a volume, M tokens kept for the model, Z Y X axes of the padded volume
(towards superior, posterior, left). The thin axis is the one across the slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from inference.explain.grounding import Source
from inference.findings import SeriesReport
from inference.prima.patches import Patches

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PrimaSeries:
    """One volume as the model reads it.

    Attributes:
        name: as the series-name encoder reads it, see `names.series_name`.
        patches: every token of the volume, read on demand.
        values: float64 [N], percent of a token's voxels that are foreground.
        kept: int64 [M], the tokens for the model, in order; a token may stand there twice.
        percent: foreground percentage at which the filter stopped, 5 down to 0.
        grid_to_patient: float64 [4, 4], token-centre indices (z, y, x, 1) -> LPS mm.
        series_uid: SeriesInstanceUID; empty where it could not be read.
        source: the source volume's geometry, for overlays; None for official study directories.
    """

    name: str
    patches: Patches
    values: npt.NDArray[np.float64]
    kept: Indices
    percent: int
    grid_to_patient: npt.NDArray[np.float64]
    series_uid: str = ""
    source: Source | None = None

    @property
    def axis(self) -> int:
        """The thin axis: 0 axial, 1 coronal, 2 sagittal."""
        return self.patches.axis

    @property
    def coords(self) -> Indices:
        """int64 [M, 3]: first voxel (z, y, x) of every kept token in the padded volume."""
        return self.patches.coords[self.kept]

    @property
    def grid_coords(self) -> Indices:
        """int64 [M, 3]: place (z, y, x) of every kept token in the grid of tokens."""
        places: Indices = self.coords // np.array(self.patches.side)
        return places

    @cached_property
    def distinct(self) -> tuple[Indices, Indices]:
        """Token numbers without repetition, and for each kept token its place among them.

        `encode(patches.upsampled(numbers))[places]` is the encoding of all kept tokens.
        """
        numbers, places = np.unique(self.kept, return_inverse=True)
        return numbers, places.astype(np.int64)

    @property
    def tokens(self) -> npt.NDArray[np.float32]:
        """float32 [M, 1, ...]: the kept tokens as the tokenizer takes them, thin axis doubled."""
        return self.patches.upsampled(self.kept)


@dataclass(frozen=True)
class Skipped:
    """A series that is not part of the answer.

    Attributes:
        series: its directory's name (official) or its SeriesInstanceUID.
        reason: for people; holds nothing of the patient.
    """

    series: str
    reason: str


@dataclass(frozen=True, eq=False)
class PrimaStudy:
    """A study as the model reads it.

    Attributes:
        series: the readable volumes, in the order of the study.
        skipped: the series that gave none, with the reason.
        description: StudyDescription, which the model reads too.
        reports: what became of each series given (own path only).
        problems: why eligible series are not, or not wholly, part of the answer (own path only).
    """

    series: tuple[PrimaSeries, ...]
    skipped: tuple[Skipped, ...] = ()
    description: str = ""
    reports: tuple[SeriesReport, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def token_count(self) -> int:
        """Tokens the model will see."""
        return sum(len(series.kept) for series in self.series)

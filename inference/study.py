"""What the models are given: one study as files on disk, nothing else.

The agent translates its database rows into these frozen values; `inference/` never sees a row, a
socket or a configuration file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Modalities a model may read; the others (SR, PR, KO, …) are kept and never offered.
IMAGE_MODALITIES = ("CT", "MR")


@dataclass(frozen=True)
class SeriesInput:
    """One DICOM series as it lies in the spool.

    Attributes:
        series_uid: SeriesInstanceUID (0020,000E), as received.
        modality: Modality (0008,0060), upper case, e.g. ``CT`` or ``MR``.
        description: SeriesDescription (0008,103E), may be empty.
        files: Part-10 files of the series, in any order.
    """

    series_uid: str
    modality: str
    description: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class StudyInput:
    """One study revision to analyse.

    Attributes:
        study_uid: StudyInstanceUID (0020,000D).
        modality: the modality the pack was chosen for (``CT`` or ``MR``).
        series: the series that routing found eligible, best first.
    """

    study_uid: str
    modality: str
    series: tuple[SeriesInput, ...]

"""The studies of a morning in the synthetic hospital: what the demo sends."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np

from training.synthetic.dicom import StudyTags
from training.synthetic.labels import Pathology, positive_labels
from training.synthetic.study import SyntheticStudy, make_study

_BEGIN = dt.datetime(2026, 1, 5, 7, 30, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Scenario:
    """One study of the demo and the order it belongs to.

    Attributes:
        key: short name for progress lines and folders.
        seed: of the study; follows from the seed of the whole set.
        severity: 0 (barely visible) to 1 (large); None draws it.
        arrival: rank in the order in which the images were acquired, from 0.
    """

    key: str
    modality: str
    pathologies: frozenset[Pathology]
    seed: int
    severity: float | None
    age: int
    sex: str
    location: str
    ordered_priority: str
    arrival: int

    @property
    def labels(self) -> frozenset[str]:
        """Label ids that are true of the study."""
        return positive_labels(self.pathologies, self.modality)

    @property
    def tags(self) -> StudyTags:
        """Patient and order as they stand in the images."""
        number = self.arrival + 1
        started = _BEGIN + dt.timedelta(minutes=7 * self.arrival)
        return StudyTags(
            patient_name=f"Demo^Patient{number:02d}",
            patient_id=f"DEMO{number:04d}",
            birth_date=dt.date(started.year - self.age, 1, 1 + self.arrival),
            sex=self.sex,
            accession_number=f"SYN{self.seed % 10**9:09d}",
            started=started,
            location=self.location,
            ordered_priority=self.ordered_priority,
        )

    def make(self, matrix: int | None = None) -> SyntheticStudy:
        """Generate the study; `matrix` as in `make_study`."""
        return make_study(
            self.seed, self.modality, self.pathologies, matrix=matrix, severity=self.severity
        )


def demo_scenarios(seed: int = 0) -> list[Scenario]:
    """The canonical set, in order of arrival: CT and MR, normal and not, mostly ordered routine.

    Another seed gives other anatomy and lesions for the same patients.
    """
    seeds = np.random.default_rng([seed, 2026]).integers(2**31, size=len(_SET))
    return [
        Scenario(
            key=key,
            modality=modality,
            pathologies=frozenset(pathologies),
            seed=int(seeds[arrival]),
            severity=severity,
            age=age,
            sex=sex,
            location=location,
            ordered_priority=ordered,
            arrival=arrival,
        )
        for arrival, (
            key,
            modality,
            pathologies,
            severity,
            age,
            sex,
            location,
            ordered,
        ) in enumerate(_SET)
    ]


_P = Pathology
_SET: tuple[tuple[str, str, tuple[Pathology, ...], float | None, int, str, str, str], ...] = (
    ("ct-normal-outpatient", "CT", (), None, 34, "F", "OUTPATIENT", "ROUTINE"),
    ("mr-normal", "MR", (), None, 29, "M", "OUTPATIENT", "ROUTINE"),
    ("ct-atrophy", "CT", (_P.ATROPHY,), 0.6, 83, "F", "INPATIENT", "ROUTINE"),
    (
        "ct-subdural-shift",
        "CT",
        (_P.SUBDURAL, _P.MIDLINE_SHIFT),
        0.6,
        78,
        "M",
        "OUTPATIENT",
        "ROUTINE",
    ),
    ("mr-stroke", "MR", (_P.INFARCT,), 0.5, 66, "F", "INPATIENT", "ROUTINE"),
    ("ct-ventricles", "CT", (_P.VENTRICULOMEGALY,), 0.5, 71, "M", "OUTPATIENT", "ROUTINE"),
    ("ct-hematoma", "CT", (_P.INTRAPARENCHYMAL,), 0.6, 59, "M", "ED", "ROUTINE"),
    ("ct-normal-ed", "CT", (), None, 41, "M", "ED", "STAT"),
    ("mr-tumor-shift", "MR", (_P.MASS, _P.MIDLINE_SHIFT), 0.7, 52, "F", "OUTPATIENT", "ROUTINE"),
    ("ct-epidural", "CT", (_P.EPIDURAL,), 0.6, 19, "M", "ED", "HIGH"),
    ("ct-subarachnoid", "CT", (_P.SUBARACHNOID,), 0.7, 47, "F", "ED", "ROUTINE"),
    ("mr-atrophy", "MR", (_P.ATROPHY,), 0.5, 80, "F", "OUTPATIENT", "ROUTINE"),
)

"""Names of the synthetic pathologies and the model labels they stand for, per modality."""

from __future__ import annotations

import enum
from collections.abc import Iterable


class Pathology(enum.StrEnum):
    """One pathology the generator can draw."""

    INTRAPARENCHYMAL = "intraparenchymal"
    SUBDURAL = "subdural"
    EPIDURAL = "epidural"
    SUBARACHNOID = "subarachnoid"
    INFARCT = "infarct"
    MASS = "mass"
    MIDLINE_SHIFT = "midline_shift"
    VENTRICULOMEGALY = "ventriculomegaly"
    ATROPHY = "atrophy"


HEMORRHAGES = frozenset(
    {
        Pathology.INTRAPARENCHYMAL,
        Pathology.SUBDURAL,
        Pathology.EPIDURAL,
        Pathology.SUBARACHNOID,
    }
)
ANY_HEMORRHAGE = "intracranial_hemorrhage"
"""Parent label: positive with any hemorrhage, in both modalities."""

# Label ids of the published NeuroVFM heads (82 for CT, 74 for MRI); their wording differs.
_CT: dict[Pathology, str] = {
    Pathology.INTRAPARENCHYMAL: "intraparenchymal_hemorrhage",
    Pathology.SUBDURAL: "acute_subdural_hematoma",
    Pathology.EPIDURAL: "epidural_hematoma",
    Pathology.SUBARACHNOID: "traumatic_subarachnoid_hemorrhage",
    Pathology.INFARCT: "acute_ischemic_stroke",
    Pathology.MASS: "intra_axial_brain_tumor",
    Pathology.MIDLINE_SHIFT: "midline_shift",
    Pathology.VENTRICULOMEGALY: "ventriculomegaly",
    Pathology.ATROPHY: "cerebral_atrophy",
}
_MR: dict[Pathology, str] = {
    **_CT,
    Pathology.SUBDURAL: "subdural_hematoma",
    Pathology.MASS: "brain_tumor",
    Pathology.MIDLINE_SHIFT: "brain_midline_shift",
}
LABELS: dict[str, dict[Pathology, str]] = {"CT": _CT, "MR": _MR}


def label_ids(modality: str) -> tuple[str, ...]:
    """Every label of one modality's head, in alphabetical order as the published heads have it."""
    return tuple(sorted({*LABELS[modality].values(), ANY_HEMORRHAGE}))


def positive_labels(pathologies: Iterable[Pathology], modality: str) -> frozenset[str]:
    """Labels that are true of a study with these pathologies, the parent label included."""
    present = frozenset(pathologies)
    parent = {ANY_HEMORRHAGE} if present & HEMORRHAGES else set()
    return frozenset({LABELS[modality][p] for p in present} | parent)

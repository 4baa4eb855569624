"""What the demo pack says about each of its labels: wording, urgency, codes and site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inference.findings import Acuity, Code
from inference.packs import Label
from training.synthetic.labels import label_ids

_BRAIN = Code("12738006", "SCT", "Brain")
_CRANIAL_CAVITY = Code("1101003", "SCT", "Intracranial")
_SUBARACHNOID = Code("33930006", "SCT", "Cranial Subarachnoid Space")
_VENTRICLES = Code("35764002", "SCT", "Brain ventricle")


@dataclass(frozen=True)
class _Wording:
    display: str
    acuity: Acuity
    code: str
    """Private code value (scheme 99NEUROVFM), or an SCT code where pydicom's dictionary has one."""
    site: Code
    localized: bool = True


# Acuity follows the triage wording of the publication: any acute hemorrhage, acute infarct, mass
# effect and tumor are urgent; wide ventricles without signs of pressure need follow-up; volume
# loss counts as normal.
_WORDING: Mapping[str, _Wording] = {
    "acute_ischemic_stroke": _Wording("Acute ischemic stroke", Acuity.URGENT, "NVFM-AIS", _BRAIN),
    "acute_subdural_hematoma": _Wording(
        "Acute subdural hematoma", Acuity.URGENT, "NVFM-ASDH", _CRANIAL_CAVITY
    ),
    "brain_midline_shift": _Wording("Brain midline shift", Acuity.URGENT, "NVFM-BMLS", _BRAIN),
    "brain_tumor": _Wording("Brain tumor", Acuity.URGENT, "NVFM-BT", _BRAIN),
    "cerebral_atrophy": _Wording(
        "Cerebral atrophy", Acuity.NORMAL, "NVFM-ATR", _BRAIN, localized=False
    ),
    "epidural_hematoma": _Wording("Epidural hematoma", Acuity.URGENT, "NVFM-EDH", _CRANIAL_CAVITY),
    "intra_axial_brain_tumor": _Wording(
        "Intra-axial brain tumor", Acuity.URGENT, "NVFM-IABT", _BRAIN
    ),
    "intracranial_hemorrhage": _Wording(
        "Intracranial hemorrhage", Acuity.URGENT, "1386000", _CRANIAL_CAVITY
    ),
    "intraparenchymal_hemorrhage": _Wording(
        "Intraparenchymal hemorrhage", Acuity.URGENT, "NVFM-IPH", _BRAIN
    ),
    "midline_shift": _Wording("Midline shift", Acuity.URGENT, "NVFM-MLS", _BRAIN),
    "subdural_hematoma": _Wording("Subdural hematoma", Acuity.URGENT, "NVFM-SDH", _CRANIAL_CAVITY),
    "traumatic_subarachnoid_hemorrhage": _Wording(
        "Traumatic subarachnoid hemorrhage", Acuity.URGENT, "NVFM-TSAH", _SUBARACHNOID
    ),
    "ventriculomegaly": _Wording("Ventriculomegaly", Acuity.ROUTINE, "NVFM-VM", _VENTRICLES),
}


@dataclass(frozen=True)
class Cut:
    """Where a label is cut, chosen on the validation studies.

    Attributes:
        probability: above it the finding is present.
        saliency: at or above it a voxel belongs to the finding's mask.
    """

    probability: float = 0.5
    saliency: float = 0.5


def pack_labels(modality: str, cuts: Mapping[str, Cut]) -> tuple[Label, ...]:
    """The shipped labels of one head in output order: those with a cut (without any, all)."""
    shipped = [label for label in label_ids(modality) if not cuts or label in cuts]
    return tuple(_label(label, cuts.get(label, Cut())) for label in shipped)


def _label(label: str, cut: Cut) -> Label:
    wording = _WORDING[label]
    scheme = "99NEUROVFM" if wording.code.startswith("NVFM") else "SCT"
    return Label(
        id=label,
        display=wording.display,
        acuity=wording.acuity,
        threshold=cut.probability,
        code=Code(wording.code, scheme, wording.display),
        localized=wording.localized,
        site=wording.site,
        saliency_threshold=cut.saliency,
    )

"""The published diagnoses: complete, in order, coded only with codes that a dictionary shows."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from inference.findings import Acuity
from inference.manifest import HeadKind
from inference.prima import labels

DIAGNOSES = labels.published(HeadKind.DIAGNOSES)
REFERRALS = labels.published(HeadKind.REFERRAL)


def test_all_52_diagnoses_are_there_in_the_published_order():
    """Alphabetical as published, with its misspelling, none twice."""
    ids = [label.id for label in DIAGNOSES]
    assert (len(ids), ids[0], ids[-1]) == (
        52,
        "cyst_arachnoid_cyst",
        "ventricular_ventriculomegaly",
    )
    assert ids == sorted(set(ids))
    assert "vascular_hemorrhagic_subarachnoid_hemorrahage" in ids
    assert labels.published(HeadKind.PRIORITY) == ()


def test_every_code_is_ours_or_in_the_dictionary_with_that_meaning():
    """A SNOMED code that no dictionary shows with exactly this meaning is not used."""
    known = {
        (scheme, value, meaning)
        for scheme, terms in concepts.items()
        for entries in terms.values()
        for value, (meaning, *_) in entries.items()
    }
    values = [label.code.value for label in (*DIAGNOSES, *REFERRALS)]
    assert len(set(values)) == len(values)
    for label in (*DIAGNOSES, *REFERRALS):
        assert len(label.code.value) <= 16  # VR SH
        assert len(label.code.meaning) <= 64  # VR LO
        if label.code.scheme == labels.SCHEME:
            assert label.code.meaning == label.display
        else:
            code = label.code
            assert (code.scheme, code.value, code.meaning) in known, label.id


def test_acuity_follows_the_published_triage_levels():
    """Bleeding, herniation, infarct, infection are urgent; age and devices raise nothing."""
    acuity = {label.id: label.acuity for label in DIAGNOSES}
    for urgent in (
        "vascular_hemorrhagic_intracranial_hemorrhage",
        "structural_brain_herniation",
        "vascular_ischemic_large_vessel_stroke",
        "infectious_brain_abscess",
    ):
        assert acuity[urgent] is Acuity.URGENT
    assert acuity["structural_cerebral_atrophy"] is Acuity.NORMAL
    assert acuity["surgical_catheter"] is Acuity.NORMAL


@pytest.mark.parametrize("kind", [HeadKind.DIAGNOSES, HeadKind.REFERRAL])
def test_an_unpublished_name_gets_a_lasting_code(kind: HeadKind):
    """The same name has the same code in every pack, and another name another one."""
    made = labels.describe("neuro_oncology", kind)
    assert made == labels.describe("neuro_oncology", kind)
    assert made.code.value != labels.describe("neuro_oncologie", kind).code.value
    assert len(made.code.value) <= 16
    assert made.acuity is Acuity.ROUTINE
    assert made.display == (
        "Neuro oncology" if kind is HeadKind.DIAGNOSES else "Referral to neuro oncology"
    )

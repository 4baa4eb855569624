"""The published labels: complete, in order, coded only with codes that a dictionary shows."""

from __future__ import annotations

from collections import Counter

import pytest
from pydicom.sr._concepts_dict import concepts

from inference.errors import InputError
from inference.findings import Acuity
from inference.neurovfm import labels


@pytest.mark.parametrize(
    ("modality", "count", "first", "last"),
    [
        ("CT", 82, "acute_ischemic_stroke", "ventriculomegaly"),
        ("MR", 74, "acute_ischemic_stroke", "viral_encephalitis"),
    ],
)
def test_every_output_has_its_label(modality: str, count: int, first: str, last: str):
    """82 CT and 74 MR labels, alphabetical as published, none twice."""
    ids = [label.id for label in labels.published(modality)]
    assert (len(ids), ids[0], ids[-1]) == (count, first, last)
    assert ids == sorted(set(ids))
    assert labels.names_by_count(count) == tuple(ids)


@pytest.mark.parametrize("modality", ["CT", "MR", "mri"])
def test_every_code_is_ours_or_in_the_dictionary_with_that_meaning(modality: str):
    """A SNOMED code that no dictionary shows with exactly this meaning is not used."""
    known = {
        (scheme, value, meaning)
        for scheme, terms in concepts.items()
        for entries in terms.values()
        for value, (meaning, *_) in entries.items()
    }
    for label in labels.published(modality):
        code = label.code
        assert len(code.value) <= 16  # VR SH
        assert len(code.meaning) <= 64  # VR LO
        if code.scheme == "99NEUROVFM":
            assert code.meaning == label.display
        else:
            assert (code.scheme, code.value, code.meaning) in known, label.id


def test_a_code_means_one_thing_in_both_heads():
    """The same value never names two labels, and a shared label has the same code."""
    by_code: dict[str, set[str]] = {}
    for modality in ("CT", "MR"):
        for label in labels.published(modality):
            by_code.setdefault(label.code.value, set()).add(label.id)
    assert all(len(ids) == 1 for ids in by_code.values())


def test_acuity_follows_the_published_triage_levels():
    """Bleeding, herniation, infarct and occlusion are urgent; age and devices raise nothing."""
    acuity = {label.id: label.acuity for label in labels.published("CT")}
    assert acuity["intracranial_hemorrhage"] is Acuity.URGENT
    assert acuity["large_vessel_occlusion"] is Acuity.URGENT
    assert acuity["brain_herniation"] is Acuity.URGENT
    assert acuity["cerebral_atrophy"] is Acuity.NORMAL
    assert acuity["catheter"] is Acuity.NORMAL
    assert set(Counter(acuity.values())) == set(Acuity)


def test_other_heads_have_numbered_labels():
    """No name is guessed for a head that was not published."""
    assert labels.names_by_count(2) == ("label_0", "label_1")
    with pytest.raises(InputError, match="US"):
        labels.published("US")

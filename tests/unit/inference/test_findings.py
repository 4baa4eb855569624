"""Findings survive JSON, count as present by their family's rule, and old files still load."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from inference.findings import (
    REFERRAL,
    Acuity,
    Code,
    Finding,
    Findings,
    ModelPriority,
    PackRef,
    Status,
)

ABSCESS = Finding(
    label="infectious_brain_abscess",
    display="Brain abscess",
    code=Code("441806004", "SCT", "Abscess of brain"),
    acuity=Acuity.URGENT,
    probability=0.45,
    threshold=0.4,
    score=0.2,
)
NEUROSURGERY = replace(ABSCESS, label="neurosurgery", kind=REFERRAL, probability=0.9)
FINDINGS = Findings(
    study_uid="1.2.3",
    status=Status.SUCCEEDED,
    pack=PackRef("prima", "1.0.0", "0" * 64, "CC", "Research use only."),
    findings=(ABSCESS, NEUROSURGERY),
    model_priority=ModelPriority(("none", "low", "high"), (0.1, 2.5, -1.0)),
)


def test_scores_kinds_and_the_models_priority_survive_json():
    """What a result object is composed from after a restart is all there."""
    assert Findings.from_json(FINDINGS.to_json()) == FINDINGS


def test_findings_written_before_scores_existed_still_load():
    """A database keeps its results over the update."""
    data = json.loads(FINDINGS.to_json())
    del data["model_priority"]
    for finding in data["findings"]:
        del finding["score"], finding["kind"]
    loaded = Findings.from_json(json.dumps(data))
    assert loaded.model_priority is None
    assert [(f.score, f.kind) for f in loaded.findings] == [(None, "diagnosis")] * 2


@pytest.mark.parametrize(
    ("score", "probability", "present"),
    [(None, 0.4, False), (None, 0.41, True), (0.0, 0.4, True), (-1e-6, 0.99, False)],
)
def test_a_score_of_zero_is_present_and_a_probability_at_its_threshold_is_not(
    score: float | None, probability: float, present: bool
):
    """The two families' published rules differ at the boundary; a score decides where given."""
    assert replace(ABSCESS, score=score, probability=probability).present is present


def test_positives_are_diagnoses_and_referrals_stand_apart():
    """A referral neither votes as a finding nor is listed as one."""
    assert FINDINGS.positives == (ABSCESS,)
    assert FINDINGS.referrals == (NEUROSURGERY,)


def test_the_priority_level_is_the_highest_output():
    """Raw outputs are compared as they are; no softmax, no threshold."""
    assert FINDINGS.model_priority.level == "low"

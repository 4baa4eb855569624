"""Drafts without a language model: careful words, and nothing the heads cannot tell."""

from __future__ import annotations

import dataclasses

import pytest
from factories.findings_model import PACK, finding, findings

from inference.findings import Acuity, Code, SeriesReport, Status
from inference.report.draft import ClinicalContext, Draft, Source
from inference.report.template import NO_MODEL, compose, likelihood, percent

CONTEXT = ClinicalContext(modality="CT", body_part="HEAD", contrast=False)
OTHER = dataclasses.replace(PACK, name="second")


def texts(draft: Draft) -> list[str]:
    """The sentences alone."""
    return [sentence.text for sentence in draft.sentences]


def test_present_findings_come_most_urgent_first_with_their_label() -> None:
    """Urgent before probable; each sentence links to the finding that supports it."""
    draft = compose(
        [
            findings(
                finding("atrophy", 0.97),
                finding("hemorrhage", 0.72, acuity=Acuity.URGENT),
                finding("fracture", 0.2, acuity=Acuity.URGENT),
            )
        ],
        CONTEXT,
    )
    assert texts(draft)[:2] == [
        "Hemorrhage: suspected, model probability 72 %.",
        "Atrophy: strongly suspected, model probability 97 %.",
    ]
    assert [s.labels for s in draft.sentences] == [("hemorrhage",), ("atrophy",), ()]
    assert "fracture" not in " ".join(texts(draft)).lower()


def test_no_finding_is_never_called_normal() -> None:
    """The draft says what was looked for, and that this excludes nothing."""
    draft = compose([findings(finding("hemorrhage", 0.1), finding("mass", 0.4))], CONTEXT)
    (said,) = texts(draft)
    assert said.startswith("Of 2 findings looked for, none reached its threshold;")
    assert said.endswith("does not show that the examination is normal.")
    assert not draft.unremarkable


def test_a_site_is_named_only_where_it_is_known_and_new() -> None:
    """No side, no place that the label does not carry."""
    brain = Code("12738006", "SCT", "Brain")
    draft = compose(
        [
            findings(
                finding("hemorrhage", 0.9, site=brain),
                finding("mass", 0.8, display="Brain mass", site=brain),
                finding("shift", 0.7),
            )
        ],
        CONTEXT,
    )
    assert [text.split(":")[0] for text in texts(draft)[:2]] == ["Hemorrhage (site", "Brain mass"]
    words = " ".join(texts(draft)).lower().split()
    assert not {"left", "right", "bilateral"} & set(words)


def test_what_was_not_analyzed_is_said() -> None:
    """Partial and failed analyses, and series left out, with the reason."""
    partial = findings(
        finding("mass", 0.9),
        status=Status.PARTIAL,
        reason="series 2 not read: gantry tilt",
        series=(
            SeriesReport("1", "CT", "", used=True),
            SeriesReport("2", "CT", "", used=False, reason="gantry tilt"),
        ),
    )
    failed = findings(status=Status.FAILED, pack=OTHER, reason="out of memory", series=())
    said = texts(compose([partial, failed], CONTEXT))
    assert "The analysis by heads is incomplete: series 2 not read: gantry tilt." in said
    assert "heads read 1 of 2 series." in said
    assert "The images were not analyzed by second: out of memory." in said


def test_nothing_analyzed_claims_nothing() -> None:
    """Neither findings nor their absence."""
    failed = findings(status=Status.NOT_ATTEMPTED, reason="no usable series")
    assert texts(compose([failed], CONTEXT)) == [
        "The images were not analyzed by heads: no usable series."
    ]
    assert texts(compose([], CONTEXT)) == ["The images were not analyzed."]


def test_one_finding_of_two_models_is_one_sentence() -> None:
    """With the higher probability, and both labels behind it."""
    code = Code("1386000", "SCT", "Intracranial hemorrhage")
    first = findings(finding("ich", 0.6, code=code))
    second = findings(finding("bleed", 0.95, code=code), pack=OTHER)
    draft = compose([first, second], CONTEXT)
    assert texts(draft)[0] == "Bleed: strongly suspected, by 2 models, model probability 95 %."
    assert draft.sentences[0].labels == ("bleed", "ich")


def test_referrals_are_no_findings() -> None:
    """Whom to ask is not what was seen."""
    draft = compose([findings(finding("neurosurgery", 0.99, kind="referral"))], CONTEXT)
    assert "eurosurgery" not in " ".join(texts(draft))


def test_it_says_that_it_is_a_template() -> None:
    """By its source, its writer and its reason; and the examination as the headers tell it."""
    draft = compose([findings(finding("mass", 0.9))], CONTEXT, reason="the server is away")
    assert (draft.source, draft.model) == (Source.TEMPLATE, "template on heads 1.0.0")
    assert draft.reason == "the server is away"
    assert compose([], CONTEXT).reason == NO_MODEL
    assert draft.exam_type == "CT, head, without contrast agent"
    assert compose([], ClinicalContext("MR")).exam_type == "MR"


def test_the_same_findings_give_the_same_draft() -> None:
    """Whatever the order of equals."""
    found = [finding("b", 0.8), finding("a", 0.8), finding("c", 0.9)]
    assert compose([findings(*found)], CONTEXT) == compose([findings(*found[::-1])], CONTEXT)


@pytest.mark.parametrize(
    ("probability", "shown", "words"),
    [
        (0.0, "under 1 %", "possible"),
        (0.004, "under 1 %", "possible"),
        (0.699, "70 %", "possible"),
        (0.7, "70 %", "suspected"),
        (0.9, "90 %", "strongly suspected"),
        (0.999, "over 99 %", "strongly suspected"),
        (1.0, "over 99 %", "strongly suspected"),
    ],
)
def test_probabilities_never_sound_certain(probability: float, shown: str, words: str) -> None:
    """Neither 0 nor 100 %."""
    assert (percent(probability), likelihood(probability)) == (shown, words)

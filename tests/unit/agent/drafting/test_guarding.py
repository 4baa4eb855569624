"""The guard where drafts are made: whoever wrote them, they leave with verdicts."""

from __future__ import annotations

from factories import guard_cases

from agent.drafting import guarding
from agent.results import sentences
from inference.report import guard
from inference.report.draft import Source, Verdict


def test_guard_of_the_installation_is_the_one_of_inference() -> None:
    """No installation drafts without it."""
    assert guarding.guard() is guard.check


def test_what_the_template_words_is_supported_and_its_limits_are_sent() -> None:
    """Nothing of our own wording is left out: it says no more than the findings."""
    scene = guard_cases.scene("ct_subdural")
    draft = guarding.worded(scene.findings, scene.context)

    assert draft.source is Source.TEMPLATE
    assert {s.verdict for s in draft.sentences} == {Verdict.SUPPORTED}
    assert sentences.told(draft, unsupported=False) == draft.sentences


def test_text_of_an_unsupported_sentence_says_so_itself() -> None:
    """However it is sent on, the mark is part of it."""
    scene = guard_cases.scene("ct_subdural")
    draft = guarding.guard()(guard_cases.draft("Meningioma."), scene.findings, scene.context)

    assert sentences.told(draft, unsupported=False) == ()
    (kept,) = sentences.told(draft, unsupported=True)
    assert sentences.marked(kept).startswith("[UNSUPPORTED: the heads say absent: Extra-axial")

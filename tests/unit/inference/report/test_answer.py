"""Reading a language model's answer: one strict object, or none."""

from __future__ import annotations

import json

import pytest

from inference.report.answer import FINDING_CHARS, FINDINGS, SCHEMA, Answer, read_answer
from inference.report.draft import Source, Verdict
from inference.report.errors import AnswerError
from inference.report.vllm.schema import Bounds, report_schema

GOOD = {"exam_type": "CT head", "findings": ["Left subdural hematoma.", "Midline shift."]}


def test_a_good_answer_becomes_an_unchecked_draft() -> None:
    """One sentence a finding, in the order written, by a model."""
    draft = read_answer(json.dumps(GOOD)).to_draft("findings 1.0", 0.5)
    assert [s.text for s in draft.sentences] == GOOD["findings"]
    assert {s.verdict for s in draft.sentences} == {Verdict.UNCHECKED}
    assert (draft.source, draft.model, draft.exam_type) == (
        Source.MODEL,
        "findings 1.0",
        "CT head",
    )


def test_answers_are_worded_as_the_reference_words_them() -> None:
    """Numbered findings, or that the study is unremarkable."""
    assert read_answer(json.dumps(GOOD)).to_text() == (
        "Detected Study Type:\nCT head\n\nFindings:\n1. Left subdural hematoma.\n2. Midline shift."
    )
    assert Answer("CT", ()).to_text().endswith("Findings:\nThe study is unremarkable.")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The study is unremarkable.",
        json.dumps(GOOD)[:-1],
        json.dumps(GOOD) + "{}",
        json.dumps([GOOD]),
        json.dumps({**GOOD, "advice": "none"}),
        '{"exam_type":"CT"}',
        '{"exam_type":"CT","exam_type":"MR","findings":[]}',
        '{"exam_type":"CT","findings":"none"}',
        '{"exam_type":"CT","findings":[NaN]}',
        '{"exam_type":"CT","findings":[1]}',
        '{"exam_type":"CT","findings":[" "]}',
        '{"exam_type":"","findings":[]}',
        '{"exam_type":null,"findings":[]}',
        '{"exam_type":"CT","findings":["a\nb"]}',
        '{"exam_type":"CT","findings":["a\\u0007"]}',
        '{"exam_type":"CT","findings":["\\ud800"]}',
        '{"exam_type":"CT","findings":["\u202etfel"]}',
        '{"exam_type":"CT","findings":["\ufffd"]}',
        json.dumps({"exam_type": "CT", "findings": ["x" * (FINDING_CHARS + 1)]}),
        json.dumps({"exam_type": "CT", "findings": ["x"] * (FINDINGS + 1)}),
        "[" * 100_000,
    ],
)
def test_anything_else_is_no_answer(text: str) -> None:
    """And its text stays out of the error, which may be logged."""
    with pytest.raises(AnswerError) as caught:
        read_answer(text)
    assert caught.value.permanent
    assert "unremarkable" not in str(caught.value)


def test_a_server_is_asked_for_the_same_form() -> None:
    """Else the two ways of drafting would not give the same words."""
    asked = report_schema(Bounds())
    assert {key: value for key, value in asked.items() if key != "x-guidance"} == SCHEMA

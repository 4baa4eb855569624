"""Embeddings that must not reach a server, and answers that do not count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from factories.vllm_stand_in import completion, stream

from inference.report.errors import AnswerError
from inference.report.vllm import safety, schema
from inference.report.vllm.errors import (
    AnswerRefused,
    ServerFault,
    ServerPoisoned,
    UnsafeEmbeddings,
)
from inference.report.vllm.safety import EmbeddingLimits
from inference.report.vllm.schema import Bounds
from inference.report.vllm.stream import assemble

LIMITS = EmbeddingLimits(width=8, max_rows=10, max_norm=50.0)


def _rows(value: float = 0.1, rows: int = 4) -> np.ndarray:
    return np.full((rows, 8), value, np.float32)


def _with(value: float) -> np.ndarray:
    rows = _rows()
    rows[2, 3] = value
    return rows


@pytest.mark.parametrize(
    ("embeds", "words"),
    [
        (_rows()[:, :7], r"\[tokens, 8\]"),
        (_rows()[0], r"\[tokens, 8\]"),
        (_rows()[None], r"\[tokens, 8\]"),
        (_rows(rows=0), "0 embeddings"),
        (_rows(rows=11), "11 embeddings"),
        (_rows().astype(np.float64), "float64"),
        (_rows().astype(np.float16), "float16"),
        (_rows().astype(np.int64), "int64"),
        (_with(np.nan), "NaN"),
        (_with(np.inf), "NaN"),
        (_with(-np.inf), "NaN"),
        (_with(60.0), "60 long"),
        (_with(3e38), "long"),
    ],
)
def test_harmful_embeddings_are_not_sent(embeds: np.ndarray, words: str) -> None:
    """A NaN of one study was measured to spoil the answers of others on the same server."""
    with pytest.raises(UnsafeEmbeddings, match=words) as raised:
        safety.check_embeddings(embeds, LIMITS)
    assert raised.value.permanent


def test_sound_embeddings_pass() -> None:
    """Up to the bound itself."""
    safety.check_embeddings(_rows(), LIMITS)
    safety.check_embeddings(_rows(rows=10), LIMITS)


def test_the_bound_follows_from_the_model() -> None:
    """A thousand times the usual row; a broken table gives the fixed bound."""
    assert safety.norm_bound(np.full((5, 4), 0.5, np.float32)) == pytest.approx(1000.0)
    assert safety.norm_bound(np.zeros((5, 4), np.float32)) == safety.DEFAULT_MAX_NORM
    assert safety.norm_bound(np.full((5, 4), np.nan, np.float32)) == safety.DEFAULT_MAX_NORM


def _logprobs(*values: Any) -> dict[str, Any]:
    return {"token_logprobs": list(values)}


def _two() -> dict[str, Any]:
    body = completion()
    return {**body, "choices": body["choices"] * 2}


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (completion(finish_reason="length"), AnswerRefused, "length"),
        (completion(finish_reason="abort"), AnswerRefused, "abort"),
        (completion(finish_reason=None), AnswerRefused, "None"),
        (_two(), AnswerRefused, "2 answers"),
        ({**completion(), "choices": []}, AnswerRefused, "0 answers"),
        ({**completion(), "choices": None}, AnswerRefused, "no answers"),
        (completion(rows=5), AnswerRefused, "read 5 tokens, 4 were sent"),
        ({**completion(), "usage": None}, AnswerRefused, "how many tokens"),
        ({**completion(), "error": {"message": "x"}}, ServerFault, "error inside"),
        ({"error": {"message": "x"}}, ServerFault, "error inside"),
        (["list"], ServerFault, "no JSON object"),
        (completion(text=""), AnswerRefused, "empty"),
        (completion(logprobs=None), AnswerRefused, "NaN could hide"),
        (completion(logprobs=_logprobs()), AnswerRefused, "NaN could hide"),
        (completion(logprobs=_logprobs(-0.1, float("nan"))), ServerPoisoned, "NaN"),
        (completion(logprobs=_logprobs(-0.1, None)), ServerPoisoned, "NaN"),
        (completion(logprobs=_logprobs(float("-inf"))), ServerPoisoned, "NaN"),
        (completion(token_ids=[5, 0, 0, 0, 0]), ServerPoisoned, "token 0"),
        (completion(text="!!!!!!!!", token_ids=None), ServerPoisoned, "token 0"),
    ],
)
def test_an_answer_with_a_flaw_does_not_count(body: Any, error: type, words: str) -> None:
    """Each was measured on a real server, or is one step from what was."""
    with pytest.raises(error, match=words):
        safety.check_answer(body, prompt_tokens=4)


def test_a_sound_answer_counts() -> None:
    """In the shape of completions and of chat."""
    answer = safety.check_answer(completion(), prompt_tokens=4)
    chat = completion(
        text=None,
        message={"content": "x"},
        logprobs={"content": [{"logprob": -0.5}]},
    )

    assert (answer.token_ids, answer.prompt_tokens, answer.completion_tokens) == ((7, 8, 9), 4, 3)
    assert safety.check_answer(chat, prompt_tokens=None, at_least=4).text == "x"
    with pytest.raises(AnswerRefused, match="at least 5"):
        safety.check_answer(chat, prompt_tokens=None, at_least=5)


@pytest.mark.parametrize(
    "text",
    [
        "The study is unremarkable.",
        '{"exam_type":"MR","findings":[]} and more',
        '{"exam_type":"MR"}',
        '{"exam_type":"MR","findings":[],"note":"x"}',
        '{"exam_type":"MR","exam_type":"CT","findings":[]}',
        '{"exam_type":"MR","findings":"none"}',
        '{"exam_type":"MR","findings":[1]}',
        '{"exam_type":"MR","findings":["a\x01b"]}',
        '{"exam_type":"MR","findings":["a\\u0007b"]}',
        '{"exam_type":"MR","findings":[" "]}',
        '{"exam_type":"MR","findings":["a","b","c"]}',
        '{"exam_type":"MR","findings":["far too long"]}',
        '{"exam_type":"longer than it may","findings":[]}',
        '{"exam_type":NaN,"findings":[]}',
        "[" * 100_000,
    ],
)
def test_what_ignores_the_schema_is_refused(text: str) -> None:
    """Servers were measured to ignore a constraint with HTTP 200."""
    with pytest.raises(AnswerError):
        schema.parse_report(text, Bounds(2, 8, 8))


def _lines(*chunks: Any, done: bool = True) -> list[str]:
    return stream(*chunks, done=done).text.splitlines()


def _piece(text: str, **changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "token_ids": [3], "logprobs": _logprobs(-0.1)}
    return {"choices": [{**choice, "finish_reason": None, **changes}]}


def test_a_stream_is_put_together() -> None:
    """As if it had come in one piece, with usage from its last part."""
    usage = {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}
    body = assemble(_lines(_piece("a"), _piece("b", finish_reason="stop"), usage))

    assert safety.check_answer(body, prompt_tokens=4).text == "ab"


@pytest.mark.parametrize(
    "lines",
    [
        _lines(_piece("a"), {"error": {"message": "EngineCore encountered an issue"}}),
        _lines(_piece("a", finish_reason="stop"), done=False),
        _lines(done=False),
        ["data: {broken"],
        ["data: 7"],
    ],
)
def test_a_stream_that_broke_is_no_answer(lines: list[str]) -> None:
    """Measured: the engine dies, the stream says so and ends with [DONE] under HTTP 200."""
    with pytest.raises(ServerFault):
        assemble(lines)

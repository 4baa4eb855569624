"""The shape of a report as it is sent to a server, and the reading that trusts no server."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

from inference.report import answer
from inference.report.answer import Answer
from inference.report.vllm.errors import AnswerRefused


@dataclass(frozen=True)
class Bounds:
    """How long a report may be. Without bounds a small model writes until its tokens run out."""

    max_findings: int = answer.FINDINGS
    max_finding_chars: int = answer.FINDING_CHARS
    max_exam_chars: int = answer.EXAM_TYPE_CHARS


def report_schema(bounds: Bounds) -> dict[str, Any]:
    """JSON schema of a report.

    Length bounds belong to the guidance backend: xgrammar answers them with raw control characters
    (measured: 28 of 40). ``x-guidance`` asks that backend for output without optional white space,
    whatever the server's default is, so that a model does not fill its tokens with blanks.
    """
    schema = copy.deepcopy(answer.SCHEMA)
    properties = schema["properties"]
    properties["exam_type"]["maxLength"] = bounds.max_exam_chars
    properties["findings"]["maxItems"] = bounds.max_findings
    properties["findings"]["items"]["maxLength"] = bounds.max_finding_chars
    return {**schema, "x-guidance": {"whitespace_flexible": False}}


def response_format(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The OpenAI parameter; vLLM's older ``guided_json`` is ignored without a word."""
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": schema, "strict": True},
    }


def parse_report(text: str, bounds: Bounds) -> Answer:
    """Read a report strictly: as if the server had ignored the schema.

    Raises:
        AnswerError: not exactly one JSON object of that shape; the text is not quoted.
    """
    report = answer.read_answer(text)
    if len(report.findings) > bounds.max_findings:
        raise AnswerRefused(f"more than {bounds.max_findings} findings")
    if len(report.exam_type) > bounds.max_exam_chars:
        raise AnswerRefused(f"exam_type is longer than {bounds.max_exam_chars} characters")
    if any(len(one) > bounds.max_finding_chars for one in report.findings):
        raise AnswerRefused(f"a finding is longer than {bounds.max_finding_chars} characters")
    return report


def strict_object(text: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """Read one JSON object that has exactly these keys, each once, and no NaN.

    Raises:
        AnswerRefused: it is something else.
    """
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise AnswerRefused("the answer is no strict JSON") from error
    if not isinstance(data, dict) or set(data) != set(keys):
        raise AnswerRefused(f"the answer is no JSON object with exactly {', '.join(keys)}")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")

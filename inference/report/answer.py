"""What a language model is asked to answer, and the strict reading of what it did answer."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from typing import Any, NoReturn

from inference.report.draft import Draft, Sentence, Source
from inference.report.errors import AnswerError

EXAM_TYPE_CHARS = 120
FINDINGS = 24
FINDING_CHARS = 400
UNREADABLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Unicode categories that no sentence needs: control, direction, private, half characters."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "exam_type": {"type": "string", "minLength": 1, "maxLength": EXAM_TYPE_CHARS},
        "findings": {
            "type": "array",
            "maxItems": FINDINGS,
            "items": {"type": "string", "minLength": 1, "maxLength": FINDING_CHARS},
        },
    },
    "required": ["exam_type", "findings"],
    "additionalProperties": False,
}
"""JSON schema of an answer, bounded so that a model that rambles still comes to an end."""


@dataclass(frozen=True)
class Answer:
    """The findings as the model worded them."""

    exam_type: str
    findings: tuple[str, ...]

    def to_text(self) -> str:
        """As the reference words its reports."""
        numbered = [f"{n}. {text}" for n, text in enumerate(self.findings, start=1)]
        lines = numbered or ["The study is unremarkable."]
        return "\n".join(["Detected Study Type:", self.exam_type, "", "Findings:", *lines])

    def to_draft(self, model: str, seconds: float = 0.0) -> Draft:
        """An unchecked draft, one sentence for each finding."""
        return Draft(
            exam_type=self.exam_type.strip(),
            sentences=tuple(Sentence(text.strip()) for text in self.findings),
            source=Source.MODEL,
            model=model,
            seconds=seconds,
        )


def read_answer(text: str) -> Answer:
    """Read an answer that must be exactly one object of `SCHEMA`.

    Raises:
        AnswerError: it is not; the text itself stays out of the message.
    """
    try:
        data: Any = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise AnswerError("the language model's answer is no strict JSON; draft again") from error
    if not isinstance(data, dict) or set(data) != {"exam_type", "findings"}:
        raise AnswerError("the answer is not an object of exam_type and findings alone")
    exam_type, findings = data["exam_type"], data["findings"]
    if not _is_text(exam_type, EXAM_TYPE_CHARS):
        raise AnswerError(f"exam_type is no text of 1 to {EXAM_TYPE_CHARS} characters")
    if not isinstance(findings, list) or len(findings) > FINDINGS:
        raise AnswerError(f"findings is no list of at most {FINDINGS} texts")
    if not all(_is_text(finding, FINDING_CHARS) for finding in findings):
        raise AnswerError(f"a finding is no text of 1 to {FINDING_CHARS} characters")
    return Answer(exam_type, tuple(findings))


def _is_text(value: object, limit: int) -> bool:
    """A text a reader can see: not blank, not too long, whole characters, nothing unprintable."""
    if not isinstance(value, str) or not value.strip() or len(value) > limit:
        return False
    return not any(unicodedata.category(c) in UNREADABLE or c == "\ufffd" for c in value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")

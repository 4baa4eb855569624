"""How soon a study should be read, in the opinion of a reasoning model that sees the drafted text.

The model is behind any OpenAI-compatible endpoint. It is given findings, age, sex and the
indication, nothing else, and its level can only raise a study's priority.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Protocol

import httpx

from inference.findings import Acuity
from inference.report import house
from inference.report.draft import ClinicalContext, Draft, Triage
from inference.report.errors import DraftError
from inference.report.house import House
from inference.report.scrub import scrub
from inference.report.vllm import http, schema
from inference.report.vllm.errors import AnswerRefused, ServerFault, ServerUnfit
from inference.report.vllm.safety import ZERO_TEXT

LEVELS_FILE = "triage_levels.json"
LEVELS = {"Urgent": Acuity.URGENT, "Routine": Acuity.ROUTINE, "Normal": Acuity.NORMAL}
KEYS = ("triage_assessment", "triage_level")
MAX_REASON_CHARS = 400
#: Ages above it identify people in small towns.
OLDEST_TOLD = 89
SEXES = {"M": "male", "F": "female", "O": "other"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "triage_assessment": {"type": "string"},
        "triage_level": {"type": "string", "enum": list(LEVELS)},
    },
    "required": list(KEYS),
    "additionalProperties": False,
}


class Reasoner(Protocol):
    """A model that answers a conversation in the form of a JSON schema."""

    @property
    def model(self) -> str:
        """Its name, as shown to the reader."""
        ...

    def answer(self, messages: Sequence[Mapping[str, str]], form: Mapping[str, Any]) -> str:
        """The text of its answer.

        Raises:
            DraftError: there is none.
        """
        ...


@dataclass(frozen=True)
class ReasonerSettings:
    """Where the model is and how long it may take.

    Attributes:
        endpoint: without ``/v1``.
        model: name there.
        house: where data may go.
        api_key: empty = none.
        timeout_s: for one attempt.
        max_tokens: its reasoning included.
        max_attempts: of one question.
    """

    endpoint: str
    model: str
    house: House
    api_key: str = ""
    timeout_s: float = 60.0
    max_tokens: int = 1024
    max_attempts: int = 2


def interpret(text: str, client: Reasoner) -> Triage:
    """Ask how soon a study with these findings should be read.

    Args:
        text: as `describe` makes it; identifiers that are left in it are removed.
        client: the reasoning model.

    Raises:
        DraftError: no opinion; `permanent` says whether asking again can help.
    """
    messages = [
        {"role": "system", "content": instructions()},
        {"role": "user", "content": "\n".join(scrub(line) for line in text.splitlines())},
    ]
    return _read(client.answer(messages, SCHEMA), client.model)


def describe(draft: Draft, context: ClinicalContext, identifiers: Sequence[str] = ()) -> str:
    """What the model is told of a study: findings, age, sex, indication; one line each.

    Args:
        draft: its sentences.
        context: of the order and the header.
        identifiers: this patient's, should one stand in free text.
    """
    lines = [f"Examination: {scrub(draft.exam_type, identifiers)}"]
    if context.age_years is not None:
        told = f"{context.age_years:.0f}" if context.age_years <= OLDEST_TOLD else "90 or older"
        lines.append(f"Age in years: {told}")
    if context.sex in SEXES:
        lines.append(f"Sex: {SEXES[context.sex]}")
    if indication := scrub(context.indication, identifiers):
        lines.append(f"Indication: {indication}")
    findings = [f"- {scrub(one.text, identifiers)}" for one in draft.sentences]
    return "\n".join([*lines, "Findings:", *(findings or ["- nothing abnormal"])])


@cache
def instructions() -> str:
    """The system turn: role, meaning of the levels, form of the answer."""
    file = resources.files("inference.report").joinpath(LEVELS_FILE)
    data = json.loads(file.read_text(encoding="utf-8"))
    lines = [data["role"], "", "Levels:"]
    for name in LEVELS:
        level = data["levels"][name]
        examples = f" For example: {'; '.join(level['examples'])}." if level["examples"] else ""
        lines.append(f"{name}: {level['meaning']}{examples}")
    form = "Answer with one JSON object with the keys triage_assessment and triage_level."
    return "\n".join([*lines, "", data["question"], form])


class HttpReasoner:
    """A reasoning model behind an OpenAI-compatible chat endpoint."""

    def __init__(
        self,
        settings: ReasonerSettings,
        *,
        lookup: house.Resolve = house.resolve,
        sleep: Callable[[float], None] = time.sleep,
        spread: Callable[[], float] = random.random,
    ) -> None:
        """Connects to nothing yet.

        Raises:
            LeavesTheHouse: the endpoint is outside and that was not permitted; a name that does
                not resolve at the moment is judged when it does.
        """
        self._settings = settings
        self._sleep, self._spread = sleep, spread
        try:
            house.check_endpoint(settings.endpoint, settings.house, lookup)
        except house.LeavesTheHouse:
            raise
        except DraftError:
            pass
        self._timeout = httpx.Timeout(settings.timeout_s)
        self._http = house.client(
            settings.house, api_key=settings.api_key, timeout=self._timeout, lookup=lookup
        )

    @property
    def model(self) -> str:
        """Its name at the endpoint."""
        return self._settings.model

    def answer(self, messages: Sequence[Mapping[str, str]], form: Mapping[str, Any]) -> str:
        """Ask, deterministically; again where that can help.

        Raises:
            DraftError: no answer, or one that cannot be believed.
        """
        body = {
            "model": self.model,
            "messages": [dict(message) for message in messages],
            "temperature": 0,
            "seed": 0,
            "n": 1,
            "max_tokens": self._settings.max_tokens,
            "response_format": schema.response_format("triage", dict(form)),
        }
        url = f"{self._settings.endpoint}/v1/chat/completions"
        attempt = 1
        while True:
            try:
                return _content(http.post(self._http, url, body, self._timeout))
            except (ServerFault, ServerUnfit):
                if attempt >= self._settings.max_attempts:
                    raise
                self._sleep(2.0 ** (attempt - 1) * (0.5 + 0.5 * self._spread()))
                attempt += 1

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()


def _content(body: Any) -> str:
    """The text of a chat answer that ended by itself."""
    if not isinstance(body, Mapping) or "error" in body:
        raise ServerFault("the server answered success with an error inside")
    choices = body.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        raise AnswerRefused("not exactly one answer to one question")
    if (end := choices[0].get("finish_reason")) != "stop":
        raise AnswerRefused(f"the opinion ended with {end!r} instead of 'stop'")
    message = choices[0].get("message")
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, str) or not content:
        raise AnswerRefused("the opinion is empty")
    if ZERO_TEXT in content:
        raise ServerFault("a run of token 0: the server computes NaN")
    return content


def _read(text: str, model: str) -> Triage:
    data = schema.strict_object(text.strip(), KEYS)
    level, reason = data["triage_level"], data["triage_assessment"]
    if level not in LEVELS:
        raise AnswerRefused("the level is none of " + ", ".join(LEVELS))
    if not isinstance(reason, str) or not reason.strip():
        raise AnswerRefused("the opinion gives no reason")
    one_line = " ".join(reason.split())
    if len(one_line) > MAX_REASON_CHARS or not one_line.isprintable():
        raise AnswerRefused(f"the reason is no sentence of at most {MAX_REASON_CHARS} characters")
    return Triage(LEVELS[level], one_line, model)

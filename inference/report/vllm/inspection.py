"""What a server is and can do, asked of the server itself before it is trusted with a draft.

A server answers HTTP 200 whether or not it honours what was asked: constraints can be ignored
without a word. So it is given small tasks whose right answer no model would give by chance.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from inference.report.errors import DraftError
from inference.report.vllm import http, payload, safety, schema
from inference.report.vllm.errors import RequestRefused, ServerPoisoned, ServerUnfit

#: Chat parts with embeddings and their errors are as this client knows them from here on.
OLDEST = (0, 32)
#: Three spaces that only the guidance backend puts there, and only because we ask.
KEY_SEPARATOR = ":   "
COUNTER = "vllm:corrupted_requests_total"
PROBE_ROWS = 4
PROBE_TOKENS = 48


@dataclass(frozen=True)
class Facts:
    """What was found.

    Attributes:
        version: of vLLM; empty where the server does not tell.
        models: served names.
        max_model_len: prompt and answer together, in tokens; None where it does not tell.
        embeddings: a prompt of embeddings is answered; the reason if not, empty if so.
        constrained: an answer followed its JSON schema.
        guidance: the backend is guidance; others were measured to write broken JSON.
        by_priority: requests may carry a priority.
        corrupted: requests whose numbers were NaN since the server started; None = not counted.
        poisoned: a probe met NaN.
    """

    version: str
    models: tuple[str, ...]
    max_model_len: int | None
    embeddings: str
    constrained: bool
    guidance: bool
    by_priority: bool
    corrupted: float | None
    poisoned: bool = False

    def refusals(self, model: str, needed_tokens: int = 0) -> list[str]:
        """Why drafts must not be made there; empty = fit."""
        found = []
        if not self.version or _version(self.version) < OLDEST:
            oldest = ".".join(str(part) for part in OLDEST)
            found.append(f"vLLM {self.version or 'unknown'}; {oldest} or newer is needed")
        if model not in self.models:
            served = ", ".join(self.models) or "nothing"
            found.append(f"it serves {served}, not {model}")
            return found
        if self.max_model_len is not None and self.max_model_len < needed_tokens:
            found.append(f"max_model_len {self.max_model_len} is less than {needed_tokens}")
        if self.poisoned:
            found.append("it computes NaN; restart it")
        elif self.embeddings:
            found.append(f"a prompt of embeddings is refused: {self.embeddings}")
        elif not self.constrained:
            found.append("it ignores the JSON schema of an answer")
        elif not self.guidance:
            found.append('structured outputs are not by "guidance"; see `vllm serve --dry-run`')
        return found


def inspect(client: httpx.Client, url: str, model: str, width: int) -> Facts:
    """Ask a server what it is.

    Args:
        client: with key and time-outs.
        url: of the server, without path.
        model: served name that will be used.
        width: of that model.

    Raises:
        ServerFault, ServerUnfit: it could not be asked.
    """
    version = _told_version(client, url)
    models, length = _models(client, url, model)
    if model not in models:
        return Facts(version, models, length, "not tried", False, False, False, None)
    probe = _Probe(client, url, model)
    try:
        embeddings = _reason(lambda: probe.embeddings(width))
        constrained, guidance = probe.constraint()
    except ServerPoisoned:
        count = corrupted(client, url)
        return Facts(version, models, length, "", False, False, False, count, poisoned=True)
    return Facts(
        version,
        models,
        length,
        embeddings,
        constrained,
        guidance,
        probe.takes_priority(),
        corrupted(client, url),
    )


def corrupted(client: httpx.Client, url: str) -> float | None:
    """The server's count of requests that met NaN; None where it keeps none.

    Raises:
        ServerFault, ServerUnfit: it could not be asked.
    """
    try:
        text = http.get(client, f"{url}/metrics").text
    except (RequestRefused, ServerUnfit):
        return None
    return nan_count(text)


def nan_count(metrics: str) -> float | None:
    """The count in a page of metrics."""
    found = re.findall(rf"^{COUNTER}(?:{{[^}}]*}})?\s+(\S+)", metrics, re.MULTILINE)
    return sum(float(value) for value in found) if found else None


@dataclass(frozen=True)
class _Probe:
    client: httpx.Client
    url: str
    model: str

    def embeddings(self, width: int) -> None:
        """A short prompt of small numbers is answered and read in full."""
        embeds = np.random.default_rng(0).normal(0, 0.01, (PROBE_ROWS, width)).astype(np.float32)
        body = payload.completion(self.model, payload.encode(embeds), payload.Decoding(1))
        answer = self._post(body)
        read = (answer.get("usage") or {}).get("prompt_tokens")
        if read != PROBE_ROWS:
            raise RequestRefused(f"it read {read} tokens of {PROBE_ROWS}")

    def constraint(self) -> tuple[bool, bool]:
        """Whether a schema is honoured, and whether by guidance."""
        code = secrets.token_hex(4)
        wanted = {
            "type": "object",
            "properties": {"code": {"type": "string", "enum": [code]}},
            "required": ["code"],
            "additionalProperties": False,
            "x-guidance": {"whitespace_flexible": False, "key_separator": KEY_SEPARATOR},
        }
        form = schema.response_format("probe", wanted)
        decoding = payload.Decoding(PROBE_TOKENS, form)
        body = payload.text_completion(self.model, "code:", decoding)
        try:
            answer = safety.check_answer(self._post(body), prompt_tokens=None)
            honoured = schema.strict_object(answer.text, ("code",)) == {"code": code}
        except ServerPoisoned:
            raise
        except DraftError:
            return False, False
        return honoured, honoured and f'"code"{KEY_SEPARATOR}"' in answer.text

    def takes_priority(self) -> bool:
        """A server without priority scheduling refuses any priority but 0."""
        decoding = payload.Decoding(1, priority=1)
        return not _reason(lambda: self._post(payload.text_completion(self.model, "a", decoding)))

    def _post(self, body: dict[str, Any]) -> Any:
        url = f"{self.url}/v1/completions"
        return http.post(self.client, url, body, self.client.timeout)


def _reason(ask: Callable[[], object]) -> str:
    """Why a task was refused; empty = it was not."""
    try:
        ask()
    except RequestRefused as error:
        return str(error)
    return ""


def _told_version(client: httpx.Client, url: str) -> str:
    try:
        answer = http.get(client, f"{url}/version").json()
    except (RequestRefused, ServerUnfit, ValueError):
        return ""
    told = answer.get("version") if isinstance(answer, dict) else None
    return told if isinstance(told, str) else ""


def _models(client: httpx.Client, url: str, model: str) -> tuple[tuple[str, ...], int | None]:
    try:
        listed = http.get(client, f"{url}/v1/models").json()["data"]
        names = tuple(str(one["id"]) for one in listed)
        length = next((one.get("max_model_len") for one in listed if one["id"] == model), None)
    except (ValueError, KeyError, TypeError, RequestRefused) as error:
        raise ServerUnfit(f"{url}: it lists no models; is this a vLLM server?") from error
    return names, length if isinstance(length, int) else None


def _version(text: str) -> tuple[int, ...]:
    numbers = re.findall(r"\d+", text.partition("+")[0])
    return tuple(int(number) for number in numbers[:2])

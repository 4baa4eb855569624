"""A server that speaks vLLM's protocol in this process, for faults no real one makes on demand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

MODEL, WIDTH = "tiny", 8
REPORT = '{"exam_type":"MR head","findings":["Mass."]}'


def completion(text: str = REPORT, *, rows: int = 4, **changes: Any) -> dict[str, Any]:
    """A completion as vLLM 0.32 answers it; `changes` replace parts of its choice."""
    choice = {
        "index": 0,
        "text": text,
        "finish_reason": "stop",
        "token_ids": [7, 8, 9],
        "logprobs": {"token_logprobs": [-0.1, -0.2, -0.3]},
    }
    usage = {"prompt_tokens": rows, "completion_tokens": 3}
    return {"choices": [{**choice, **changes}], "usage": usage}


def stream(*chunks: Any, done: bool = True) -> httpx.Response:
    """A streamed answer."""
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return httpx.Response(200, text="".join([*lines, "data: [DONE]\n\n"] if done else lines))


@dataclass
class StandIn:
    """One server, honest in everything but what a test changes.

    Attributes:
        draft: answers requests for drafts; the default is a good report.
        guidance: honours the schema by the guidance backend.
        honours: honours the schema at all.
        by_priority: takes priorities.
        corrupted: its NaN counter.
        bodies: requests for drafts.
    """

    draft: Callable[[dict[str, Any]], Any] = lambda _: completion()
    version: str = "0.32.0"
    guidance: bool = True
    honours: bool = True
    by_priority: bool = True
    corrupted: float | None = 0.0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    probes: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer as vLLM does, or as the test says."""
        match request.url.path:
            case "/version":
                return httpx.Response(200, json={"version": self.version})
            case "/v1/models":
                listed = [{"id": MODEL, "max_model_len": 1024}]
                return httpx.Response(200, json={"data": listed})
            case "/metrics":
                line = f'vllm:corrupted_requests_total{{engine="0"}} {self.corrupted}\n'
                return httpx.Response(200, text=line if self.corrupted is not None else "")
        body = json.loads(request.content)
        if body.get("prompt") or body["max_tokens"] == 1:
            self.probes += 1
            return self._probe(body)
        self.bodies.append(body)
        answer = self.draft(body)
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    def _probe(self, body: dict[str, Any]) -> httpx.Response:
        if body.get("priority") and not self.by_priority:
            return httpx.Response(400, json={"error": {"message": "no priority scheduling"}})
        text = "a"
        if form := body.get("response_format"):
            properties = form["json_schema"]["schema"]["properties"]
            [code] = properties["code"]["enum"]
            space = "   " if self.guidance else ""
            text = f'{{"code":{space}"{code}"}}' if self.honours else "no"
        end = "stop" if form else "length"
        return httpx.Response(200, json=completion(text, finish_reason=end))

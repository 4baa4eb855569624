"""A streamed answer put together again, as if it had come in one piece.

Measured: when the engine dies in the middle, the stream goes on with ``data: {"error": ...}`` and a
normal ``[DONE]``, under HTTP 200. A stream without ``[DONE]``, or with an error, is no answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from inference.report.vllm.errors import ServerFault

PREFIX = "data:"
END = "[DONE]"


def assemble(lines: Iterable[str]) -> dict[str, Any]:
    """Collect server-sent events into one answer of the non-streaming shape.

    Raises:
        ServerFault: an error inside the stream, or it ended early.
    """
    pieces = _Pieces()
    for data in _events(lines):
        if data == END:
            return pieces.answer()
        pieces.add(_decoded(data))
    raise ServerFault("the stream ended before the answer did")


class _Pieces:
    def __init__(self) -> None:
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: Any = None

    def add(self, chunk: Mapping[str, Any]) -> None:
        if "error" in chunk:
            raise ServerFault("an error inside the stream, under HTTP 200")
        self._usage = chunk.get("usage") or self._usage
        for part in chunk.get("choices") or ():
            self._add_part(part)

    def _add_part(self, part: Mapping[str, Any]) -> None:
        empty: dict[str, Any] = {
            "text": "",
            "token_ids": [],
            "token_logprobs": [],
            "finish_reason": None,
        }
        choice = self._choices.setdefault(part.get("index", 0), empty)
        delta = part.get("delta") or {}
        choice["text"] += part.get("text") or delta.get("content") or ""
        choice["token_ids"] += part.get("token_ids") or []
        choice["token_logprobs"] += _values(part.get("logprobs") or {})
        choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]

    def answer(self) -> dict[str, Any]:
        choices = [
            {**one, "logprobs": {"token_logprobs": one.pop("token_logprobs")}}
            for one in self._choices.values()
        ]
        return {"choices": choices, "usage": self._usage}


def _values(logprobs: Mapping[str, Any]) -> list[Any]:
    if content := logprobs.get("content"):
        return [one.get("logprob") for one in content]
    return list(logprobs.get("token_logprobs") or ())


def _events(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith(PREFIX):
            yield line.removeprefix(PREFIX).strip()


def _decoded(data: str) -> Mapping[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise ServerFault("a part of the stream is no JSON") from error
    if not isinstance(chunk, dict):
        raise ServerFault("a part of the stream is no JSON object")
    return chunk

"""One request to one server, and what its status, time-out or silence means."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from inference.report.vllm import stream
from inference.report.vllm.errors import (
    RequestRefused,
    ServerFault,
    ServerPoisoned,
    ServerUnfit,
)

#: The server's words when its numbers are NaN and it cannot write them as JSON (HTTP 400).
NAN_WORDS = "Out of range float values"
#: Too busy, restarting, or a proxy's words for it.
TRANSIENT = frozenset({408, 425, 429})
#: Not the request's fault; for the operator to mend.
UNFIT = {
    401: "the key in api_key_file is not the server's",
    403: "the key in api_key_file is not the server's",
    404: "it does not serve this model, or is no vLLM server",
}


def post(http: httpx.Client, url: str, body: dict[str, Any], timeout: httpx.Timeout) -> Any:
    """Ask and read the answer's JSON.

    Raises:
        ServerFault, ServerPoisoned, RequestRefused: see `errors`.
    """
    try:
        response = http.post(url, json=body, timeout=timeout)
    except httpx.HTTPError as error:
        raise _unreached(error) from error
    refuse(response.status_code, response.content)
    try:
        return response.json()
    except ValueError as error:
        raise ServerFault("HTTP 200 without JSON: something else answers there") from error


def post_stream(
    http: httpx.Client,
    url: str,
    body: dict[str, Any],
    timeout: httpx.Timeout,
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
) -> Any:
    """Ask for a stream; `timeout.read` bounds the silence, `deadline` the whole.

    Raises:
        ServerFault, ServerPoisoned, RequestRefused: see `errors`.
    """
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        with http.stream("POST", url, json=asked, timeout=timeout) as response:
            if response.status_code != httpx.codes.OK:
                refuse(response.status_code, response.read())
            return stream.assemble(_until(response.iter_lines(), deadline, clock))
    except httpx.HTTPError as error:
        raise _unreached(error) from error


def get(http: httpx.Client, url: str) -> httpx.Response:
    """Ask for a page of the server.

    Raises:
        ServerFault, RequestRefused: see `errors`.
    """
    try:
        response = http.get(url)
    except httpx.HTTPError as error:
        raise _unreached(error) from error
    refuse(response.status_code, response.content)
    return response


def refuse(status: int, content: bytes) -> None:
    """Raise what a status other than success means; a server's words may quote the request."""
    if status == httpx.codes.OK:
        return
    text = content[:4096].decode("utf-8", "replace")
    if NAN_WORDS in text:
        raise ServerPoisoned("the server computes NaN and cannot write its answer")
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in TRANSIENT:
        raise ServerFault(f"HTTP {status}")
    if status in UNFIT:
        raise ServerUnfit(f"HTTP {status}: {UNFIT[status]}")
    raise RequestRefused(f"HTTP {status}: the server refuses the request")


def _unreached(error: httpx.HTTPError) -> ServerFault:
    if isinstance(error, httpx.TimeoutException):
        return ServerFault(f"no answer in time ({type(error).__name__})")
    return ServerFault(f"no connection, or it broke ({type(error).__name__})")


def _until(lines: Iterator[str], deadline: float, clock: Callable[[], float]) -> Iterator[str]:
    for line in lines:
        if clock() > deadline:
            raise ServerFault("the answer takes longer than it may")
        yield line

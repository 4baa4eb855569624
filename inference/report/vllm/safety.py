"""What may be sent to a server that other studies share, and which of its answers are believed.

Measured on vLLM 0.32: a NaN in the embeddings of one request is answered with HTTP 200 and ``!!!!``
(token 0), or under a schema with well-formed filler; its memory is then used again uncleaned, and
valid requests of other studies get the same. The server does not check, so we do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.report.vllm.errors import (
    AnswerRefused,
    ServerFault,
    ServerPoisoned,
    UnsafeEmbeddings,
)

# Shapes: T rows (tokens), H width of the language model.

#: A row this many times longer than the language model's own median row is no token of anything;
#: projected images of trained connectors stay within two orders of magnitude.
NORM_FACTOR = 1000.0
#: Where the language model's own embeddings are not at hand.
DEFAULT_MAX_NORM = 1e5
#: Token 0 is ``!`` in the GPT-2 and Qwen vocabularies.
ZERO_RUN = 4
ZERO_TEXT = "!" * ZERO_RUN


@dataclass(frozen=True)
class EmbeddingLimits:
    """What embeddings for one language model may look like.

    Attributes:
        width: H.
        max_rows: longest prompt that leaves the server room to answer.
        max_norm: largest Euclidean length of a row.
    """

    width: int
    max_rows: int
    max_norm: float = DEFAULT_MAX_NORM


@dataclass(frozen=True)
class Answer:
    """A generation that ended by itself.

    Attributes:
        text: what was written.
        token_ids: as generated; empty where the server does not tell.
        prompt_tokens: rows that the server says it read.
        completion_tokens: how many it wrote.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    completion_tokens: int


def norm_bound(embedding_matrix_VH: npt.NDArray[np.floating[Any]]) -> float:  # noqa: N803
    """The bound that follows from a language model's own embeddings."""
    norms = np.linalg.norm(embedding_matrix_VH.astype(np.float32, copy=False), axis=-1)
    median = float(np.median(norms))
    return NORM_FACTOR * median if math.isfinite(median) and median > 0 else DEFAULT_MAX_NORM


def check_embeddings(embeds: npt.NDArray[np.float32], limits: EmbeddingLimits) -> None:
    """Refuse what must not reach a server.

    Args:
        embeds: [T, H].
        limits: of the language model that reads them.

    Raises:
        UnsafeEmbeddings: says what is wrong with them.
    """
    if embeds.dtype != np.float32:
        raise UnsafeEmbeddings(f"embeddings are {embeds.dtype}, expected float32")
    if embeds.ndim != 2 or embeds.shape[1] != limits.width:
        shape = list(embeds.shape)
        raise UnsafeEmbeddings(f"embeddings are {shape}, expected [tokens, {limits.width}]")
    if not 0 < len(embeds) <= limits.max_rows:
        raise UnsafeEmbeddings(f"{len(embeds)} embeddings, expected 1 to {limits.max_rows}")
    if not np.isfinite(embeds).all():
        raise UnsafeEmbeddings(
            "embeddings hold NaN or infinity: the model that made them is broken"
        )
    longest = float(np.sqrt(np.einsum("th,th->t", embeds, embeds, dtype=np.float64).max()))
    if longest > limits.max_norm:
        raise UnsafeEmbeddings(
            f"an embedding is {longest:.3g} long, at most {limits.max_norm:.3g} is plausible"
        )


def check_answer(body: Any, *, prompt_tokens: int | None, at_least: int = 0) -> Answer:
    """Believe a completion or chat completion only if nothing speaks against it.

    Args:
        body: decoded JSON of an answer with HTTP 200, logprobs and token ids asked for.
        prompt_tokens: rows that were sent; None where the server wrote the prompt (chat).
        at_least: rows that a prompt written by the server holds at the least.

    Raises:
        AnswerRefused, ServerFault, ServerPoisoned: why it is not believed.
    """
    if not isinstance(body, Mapping):
        raise ServerFault("the server's answer is no JSON object")
    if "error" in body:
        raise ServerFault("the server answered success with an error inside")
    choice = _only_choice(body)
    if (end := choice.get("finish_reason")) != "stop":
        raise AnswerRefused(f"generation ended with {end!r} instead of 'stop'")
    read, written = _usage(body)
    if prompt_tokens is not None and read != prompt_tokens:
        raise AnswerRefused(f"the server read {read} tokens, {prompt_tokens} were sent")
    if prompt_tokens is None and read < at_least:
        raise AnswerRefused(f"the server read {read} tokens, at least {at_least} were sent")
    ids = tuple(choice.get("token_ids") or ())
    text = _text(choice)
    _check_numbers(_logprobs(choice), ids, text)
    return Answer(text, ids, read, written)


def _only_choice(body: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = body.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        count = len(choices) if isinstance(choices, list) else "no"
        raise AnswerRefused(f"{count} answers to one question")
    return choices[0]


def _usage(body: Mapping[str, Any]) -> tuple[int, int]:
    usage = body.get("usage")
    if not isinstance(usage, Mapping):
        raise AnswerRefused("the server does not tell how many tokens it read")
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(read, int) or not isinstance(written, int) or written < 1:
        raise AnswerRefused("the server does not tell how many tokens it read and wrote")
    return read, written


def _text(choice: Mapping[str, Any]) -> str:
    message = choice.get("message")
    text = message.get("content") if isinstance(message, Mapping) else choice.get("text")
    if not isinstance(text, str) or not text:
        raise AnswerRefused("the answer is empty")
    return text


def _logprobs(choice: Mapping[str, Any]) -> list[Any]:
    """Of each generated token, in the shape of either interface."""
    told = choice.get("logprobs")
    if not isinstance(told, Mapping):
        raise AnswerRefused("log probabilities were asked for and not given: NaN could hide")
    if isinstance(content := told.get("content"), list):
        return [one.get("logprob") for one in content if isinstance(one, Mapping)]
    values = told.get("token_logprobs")
    return values if isinstance(values, list) else []


def _check_numbers(logprobs: Sequence[Any], ids: Sequence[int], text: str) -> None:
    if not logprobs:
        raise AnswerRefused("log probabilities were asked for and not given: NaN could hide")
    if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in logprobs):
        raise ServerPoisoned("a log probability is no finite number: the server computes NaN")
    if _longest_zero_run(ids) >= ZERO_RUN or ZERO_TEXT in text:
        raise ServerPoisoned("a run of token 0: the server computes NaN")


def _longest_zero_run(ids: Sequence[int]) -> int:
    longest = run = 0
    for one in ids:
        run = run + 1 if one == 0 else 0
        longest = max(longest, run)
    return longest

"""The bodies of requests: embeddings as bytes that hold nothing else, completions and chat."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from inference.report.prompt import PromptStyle, plain
from inference.report.vllm.errors import UnsafeEmbeddings

if TYPE_CHECKING:
    from torch import Tensor

# Shapes: T rows (tokens), H width of the language model.

WireDtype = Literal["float32", "bfloat16", "float16"]
#: torch.save's archive around one tensor; measured 1.2 kB.
ARCHIVE_BYTES = 4096


@dataclass(frozen=True)
class Decoding:
    """How the server is to generate: deterministic, bounded, and telling its numbers.

    Attributes:
        max_tokens: answers that need more are refused (`finish_reason` length).
        response_format: as `schema.response_format`.
        priority: lower is handled earlier; None where the server does not schedule by priority.
        extra: further parameters of vLLM.
    """

    max_tokens: int
    response_format: dict[str, Any] | None = None
    priority: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The parameters that completions and chat share."""
        values: dict[str, Any] = {
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "n": 1,
            "return_token_ids": True,
            **self.extra,
        }
        if self.response_format is not None:
            values["response_format"] = self.response_format
        if self.priority is not None:
            values["priority"] = self.priority
        return values


def encode(embeds: Tensor | npt.NDArray[np.float32], dtype: WireDtype = "float32") -> str:
    """Embeddings as base64 of torch.save, holding these rows and not one byte of their neighbours.

    torch.save writes a tensor's whole storage: a slice of a batch would carry every other study of
    that batch (measured: 5.6 MB became 358 MB). Hence the copy, always, and the check of it.

    Raises:
        UnsafeEmbeddings: the bytes are more than these rows need.
    """
    import torch

    tensor = torch.from_numpy(embeds) if isinstance(embeds, np.ndarray) else embeds
    own = (
        tensor.detach()
        .to("cpu", getattr(torch, dtype))
        .clone(memory_format=torch.contiguous_format)
    )
    buffer = io.BytesIO()
    torch.save(own, buffer)
    raw = buffer.getvalue()
    if len(raw) > own.numel() * own.element_size() + ARCHIVE_BYTES:
        raise UnsafeEmbeddings("serialized embeddings hold more than their own rows")
    return base64.b64encode(raw).decode("ascii")


def completion(model: str, encoded: str, decoding: Decoding) -> dict[str, Any]:
    """A completion of a whole prompt of embeddings.

    There is no ``prompt``: beside ``prompt_embeds`` it would be answered too, as a second choice.
    """
    return {"model": model, "prompt_embeds": encoded, "logprobs": 1, **decoding.body()}


def text_completion(model: str, prompt: str, decoding: Decoding) -> dict[str, Any]:
    """A completion of text, for probes."""
    return {"model": model, "prompt": prompt, "logprobs": 1, **decoding.body()}


def chat(model: str, messages: Sequence[dict[str, Any]], decoding: Decoding) -> dict[str, Any]:
    """A chat completion; the server writes the prompt by its template."""
    body = decoding.body()
    return {
        "model": model,
        "messages": list(messages),
        "logprobs": True,
        "top_logprobs": 1,
        **body,
    }


def text_part(text: str) -> dict[str, Any]:
    """Text within a message."""
    return {"type": "text", "text": text}


def embeds_part(encoded: str) -> dict[str, Any]:
    """Embeddings within a message; the server puts them where they stand."""
    return {"type": "prompt_embeds", "data": encoded}


def messages(style: PromptStyle, encoded: Sequence[str], indication: str) -> list[dict[str, Any]]:
    """The prompt of one study as messages, one block of embeddings for each series.

    The server tokenizes and templates the text; only the visual tokens are ours.
    """
    before, after = style.image.split(style.image_token)
    parts: list[dict[str, Any]] = []
    for one in encoded:
        parts += [text_part(before)] if before else []
        parts += [embeds_part(one)]
        parts += [text_part(after)] if after else []
    lines = [style.instruction]
    if indication:
        lines.append(style.indication.replace("{indication}", safe_text(indication)))
    lines.append(style.answer_format)
    user = _merged([*parts, text_part("\n".join(lines))])
    return [{"role": "system", "content": style.system}, {"role": "user", "content": user}]


def safe_text(text: str) -> str:
    """Free text in which neither a special token nor the server's own mark can hide."""
    return plain(text).replace("<prompt_embeds>", "< prompt_embeds>")


def _merged(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighboring texts as one: templates may put something between parts."""
    merged: list[dict[str, Any]] = []
    for part in parts:
        if merged and part["type"] == merged[-1]["type"] == "text":
            merged[-1] = text_part(merged[-1]["text"] + part["text"])
        else:
            merged.append(part)
    return merged

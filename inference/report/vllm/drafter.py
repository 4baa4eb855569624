"""Drafts by vLLM: visual tokens → checked embeddings → a constrained generation → a draft."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import structlog

from inference.report.draft import ClinicalContext, Draft
from inference.report.local import tidy
from inference.report.prompt import PromptEmbeddings, PromptStyle
from inference.report.tokens import VisualTokens
from inference.report.vllm import payload, safety, schema
from inference.report.vllm.client import MakeBody, VllmClient
from inference.report.vllm.payload import Decoding, WireDtype
from inference.report.vllm.safety import Answer, EmbeddingLimits
from inference.report.vllm.schema import Bounds

log = structlog.get_logger(__name__)

Transport = Literal["prompt_embeds", "chat"]
#: Writes the whole prompt of a study: `inference.report.assembler.PromptAssembler.assemble`.
Assemble = Callable[[VisualTokens, str], PromptEmbeddings]
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@dataclass(frozen=True)
class Recipe:
    """How one pack's language model is asked.

    Attributes:
        model: name under which the servers serve it.
        shown: name and version of the pack, for the reader.
        limits: of embeddings.
        bounds: of reports.
        max_tokens: of an answer.
        dtype: of embeddings on the wire; the server's own loses nothing.
        style: wording, for chat.
        assemble: whole prompts, for completions; None = chat.
    """

    model: str
    shown: str
    limits: EmbeddingLimits
    bounds: Bounds
    max_tokens: int = 512
    dtype: WireDtype = "bfloat16"
    style: PromptStyle | None = None
    assemble: Assemble | None = None


class VllmDrafter:
    """A `Drafter` behind HTTP; safe to be used by several threads."""

    def __init__(self, client: VllmClient, recipe: Recipe) -> None:
        self._client = client
        self._recipe = recipe

    def draft(self, tokens: VisualTokens, context: ClinicalContext, priority_rank: int) -> Draft:
        """Draft the findings of one study.

        Raises:
            DraftError: see `inference.report.vllm.errors`.
        """
        began = time.monotonic()
        answer = self._generate(tokens, tidy(context.indication), priority_rank)
        report = schema.parse_report(answer.text, self._recipe.bounds)
        seconds = time.monotonic() - began
        log.info("draft_written", count=answer.completion_tokens, seconds=round(seconds, 3))
        return report.to_draft(self._recipe.shown, round(seconds, 3))

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def _generate(self, tokens: VisualTokens, indication: str, rank: int) -> Answer:
        if self._recipe.assemble is None:
            return self._by_chat(tokens, indication, rank)
        recipe, prompt = self._recipe, self._recipe.assemble(tokens, indication)
        safety.check_embeddings(prompt.embeds, recipe.limits)
        encoded = payload.encode(prompt.embeds, recipe.dtype)

        def body(by_priority: bool) -> dict[str, object]:
            return payload.completion(recipe.model, encoded, self._decoding(rank, by_priority))

        return self._ask(COMPLETIONS, body, rank, len(prompt.embeds), 0)

    def _by_chat(self, tokens: VisualTokens, indication: str, rank: int) -> Answer:
        recipe, style = self._recipe, self._recipe.style or PromptStyle.default()
        rows = tokens.tokens.reshape(-1, tokens.width)
        safety.check_embeddings(rows, recipe.limits)
        encoded = [payload.encode(one, recipe.dtype) for one in tokens.tokens]
        messages = payload.messages(style, encoded, indication)

        def body(by_priority: bool) -> dict[str, object]:
            return payload.chat(recipe.model, messages, self._decoding(rank, by_priority))

        return self._ask(CHAT, body, rank, None, len(rows))

    def _ask(self, path: str, body: MakeBody, rank: int, rows: int | None, at_least: int) -> Answer:
        return self._client.generate(path, body, rank=rank, prompt_tokens=rows, at_least=at_least)

    def _decoding(self, rank: int, by_priority: bool) -> Decoding:
        form = schema.response_format("report", schema.report_schema(self._recipe.bounds))
        return Decoding(self._recipe.max_tokens, form, rank if by_priority else None)

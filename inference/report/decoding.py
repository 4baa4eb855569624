"""How tokens are chosen: the decoding settings, and the processors that keep an answer in form.

transformers calls the processors with the ids generated so far; with embeddings as the prompt the
first call has none. They keep no state between rows, so that beams may swap places.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.errors import NotAvailableError
from inference.report.errors import DraftError
from inference.report.vocabulary import Vocabulary


@dataclass(frozen=True)
class Decoding:
    """How an answer is searched for; penalties see generated tokens only."""

    beams: int = 1
    max_new_tokens: int = 512
    min_new_tokens: int = 3
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0


def processors(decoding: Decoding, mask: Tensor) -> list[Any]:
    """The processors of a decoding, in the order in which the reference applies them.

    transformers leaves the padding of a prompt out of the repetition penalty; where the prompt is
    embeddings that is the first tokens of the answer instead. Harmless for one study, which has no
    padding, and part of the reference's numbers for several.
    """
    found: list[Any] = []
    if decoding.repetition_penalty != 1.0:
        padding = (mask != 0).int().argmax(dim=1).tolist()
        found.append(RepetitionPenalty(decoding.repetition_penalty, padding))
    if decoding.no_repeat_ngram:
        found.append(TolerantNgramBan(decoding.no_repeat_ngram))
    return found


GREEDY = Decoding()
"""The likeliest token every time: what a vLLM server gives at temperature 0."""
REFERENCE = Decoding(beams=4, repetition_penalty=1.2, no_repeat_ngram=4)
"""As NeuroVFM generates."""


class JsonGuard:
    """Allows only tokens that keep the answer on its way to an instance of a JSON schema."""

    def __init__(
        self, vocabulary: Vocabulary, schema: Mapping[str, Any], eos_id: int, logits: int
    ) -> None:
        """Compile the schema.

        Args:
            vocabulary: of the language model.
            schema: JSON schema of the answer.
            eos_id: the token that ends an answer.
            logits: outputs of the language model, which may be padded beyond the vocabulary.

        Raises:
            NotAvailableError: the llguidance library is not installed.
        """
        try:
            import llguidance
            from llguidance import numpy as bits
        except ImportError as error:
            raise NotAvailableError(
                "answers in JSON need the llguidance library: install worklist-agent[local]"
            ) from error
        tokenizer = llguidance.LLTokenizer(vocabulary.text, n_vocab=logits, eos_token=eos_id)
        grammar = llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(schema), overrides={"whitespace_flexible": False}
        )
        root = llguidance.LLMatcher(tokenizer, grammar)
        if root.is_error():
            raise DraftError(f"the answer's schema is not understood: {root.get_error()}")
        self._bits = bits
        self._mask = bits.allocate_token_bitmask(1, logits)
        self._matchers: dict[tuple[int, ...], Any] = {(): root}
        self._eos_id, self._logits = eos_id, logits

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, vocabulary] with everything forbidden at minus infinity."""
        rows = [tuple(row) for row in ids.tolist()]
        matchers = {row: self._at(row) for row in dict.fromkeys(rows)}
        self._matchers = {(): self._matchers[()], **matchers}
        forbidden = torch.stack([~self._allowed(matchers[row]) for row in rows])
        return scores.masked_fill(forbidden.to(scores.device), float("-inf"))

    def _at(self, row: tuple[int, ...]) -> Any:
        """The matcher after these tokens: one step from where a row of the last call was."""
        found = self._matchers.get(row)
        if found is None:
            found = self._at(row[:-1]).deep_copy()
            if not found.is_stopped() and not found.consume_token(row[-1]):
                raise DraftError("the language model left the answer's form; check its tokenizer")
            self._matchers[row] = found
        return found

    def _allowed(self, matcher: Any) -> Tensor:
        """Bool [vocabulary]; after the end only the end again."""
        if matcher.is_stopped():
            ended = torch.zeros(self._logits, dtype=torch.bool)
            ended[self._eos_id] = True
            return ended
        self._bits.fill_next_token_bitmask(matcher, self._mask, 0)
        words = torch.from_numpy(self._mask.reshape(-1)).unsqueeze(1)
        return (words >> torch.arange(32) & 1).flatten()[: self._logits].bool()


class RepetitionPenalty:
    """Makes tokens that were generated before less likely: scores below 0 grow by the factor."""

    def __init__(self, factor: float, ignored: Sequence[int] = ()) -> None:
        """Keep the settings.

        Args:
            factor: above 1 penalizes.
            ignored: how many tokens at the start of each row are not penalized.
        """
        self._factor, self._ignored = factor, tuple(ignored)

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, vocabulary], penalized where the row holds the token."""
        skipped = torch.tensor(self._ignored or (0,), device=ids.device)
        skipped = skipped.repeat_interleave(len(ids) // len(skipped))  # beams share a row's
        counted = torch.arange(ids.shape[1], device=ids.device) >= skipped.unsqueeze(1)
        held = torch.zeros_like(scores).scatter_add_(1, ids, counted.to(scores.dtype))
        penalized = torch.where(scores < 0, scores * self._factor, scores / self._factor)
        return torch.where(held > 0, penalized, scores)


class TolerantNgramBan:
    """Forbids a repeated n-gram unless nothing else is left.

    A JSON answer repeats its punctuation by need; where the form leaves one token only, a plain
    ban would leave none, and the model would answer token 0.
    """

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Scores with the last token of every known n-gram at minus infinity."""
        scores = scores.clone()
        for row, values in zip(ids.tolist(), scores, strict=True):
            banned = repeated(row, self._size)
            if not banned:
                continue
            kept = values.clone()
            kept[banned] = float("-inf")
            if torch.isfinite(kept).any():
                values.copy_(kept)
        return scores


def repeated(row: Sequence[int], size: int) -> list[int]:
    """Tokens that would complete an n-gram of this size which the row already holds."""
    if len(row) + 1 < size:
        return []
    prefix = tuple(row[len(row) - size + 1 :])
    ends = range(size - 1, len(row))
    return [row[end] for end in ends if tuple(row[end - size + 1 : end]) == prefix]

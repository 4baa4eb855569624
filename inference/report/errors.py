"""The errors of drafting: what keeps a language model's words from becoming a draft."""

from __future__ import annotations

from inference.errors import InferenceError


class DraftError(InferenceError):
    """No draft of this study, from this drafter.

    `permanent` says that the same study and the same model will fail again: a template takes the
    draft's place. Otherwise the draft may be asked for later.
    """


class PromptError(DraftError, ValueError):
    """Visual tokens, wording and language model do not fit (a ValueError, as in the reference)."""


class AnswerError(DraftError):
    """The language model answered, but not with the findings that were asked for."""

"""Text to ids and back with a language model's own tokenizer, without a model library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.errors import ConfigError, NotAvailableError

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokenizer of a language model's directory.

    Attributes:
        tokenizer: of the `tokenizers` library.
        text: its description, as the file holds it.
    """

    tokenizer: Any
    text: str

    @staticmethod
    def load(directory: Path) -> Vocabulary:
        """Read tokenizer.json of a Hugging Face model directory; nothing is fetched.

        Raises:
            ConfigError: there is none, or it is damaged.
            NotAvailableError: the tokenizers library is not installed.
        """
        try:
            import tokenizers
        except ImportError as error:
            raise NotAvailableError(
                "prompts need the tokenizers library: install worklist-agent[local]"
            ) from error
        file = directory / TOKENIZER_FILE
        if not file.is_file():
            raise ConfigError(
                f"{directory.name}: holds no {TOKENIZER_FILE}; export the tokenizer with "
                "save_pretrained"
            )
        text = file.read_text(encoding="utf-8")
        try:
            made = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f"{TOKENIZER_FILE}: damaged or not a tokenizer") from error
        made.no_padding()
        made.no_truncation()
        return Vocabulary(made, text)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; names of special tokens in it become those tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def id_of(self, token: str) -> int:
        """Id of one token.

        Raises:
            ConfigError: the vocabulary does not hold it.
        """
        found: int | None = self.tokenizer.token_to_id(token)
        if found is None:
            raise ConfigError(f"{TOKENIZER_FILE}: has no token {token}; use the model's own files")
        return found

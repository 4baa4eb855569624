"""The text side of the main training: a language model that gives a report one unit vector.

Needs the extra `local`. A GPT-2 is built from its settings, or any causal model of transformers is
read from a local directory; nothing is fetched. Legend: B reports, L ids of one, F features.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.runtime import RunError

BYTES = 256


@dataclass(frozen=True)
class TextConfig:
    """The text tower.

    Attributes:
        directory: a Hugging Face model directory with safetensors and tokenizer.json; empty = a new
            GPT-2.
        settings: of the new GPT-2, as `GPT2Config` names them.
        tokenizer: directory with a tokenizer.json for a new GPT-2; empty = the bytes of the text.
        max_tokens: of a report; the rest is cut off.
    """

    directory: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = ""
    max_tokens: int = 200


class TextTower(nn.Module):
    """A language model and the projection behind the last token of a report."""

    def __init__(self, model: nn.Module, width: int, features: int) -> None:
        super().__init__()
        self.model = model
        self.mlp_head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, features), nn.LayerNorm(features)
        )

    def forward(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Ids of each report to unit vectors [B, F]."""
        device = next(self.mlp_head.parameters()).device
        lengths = torch.tensor([len(text) for text in texts], device=device)
        longest = int(lengths.max())
        ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts], device=device)
        mask = (torch.arange(longest, device=device) < lengths[:, None]).long()
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        last = hidden[torch.arange(len(texts), device=device), lengths - 1]
        return functional.normalize(self.mlp_head(last), dim=-1)


class ReportReader:
    """A report's text as ids, at most so many, the last of them the end."""

    def __init__(self, config: TextConfig) -> None:
        """Load the tokenizer.

        Raises:
            RunError: there is none, or it has no end token.
        """
        from inference.errors import PackError
        from inference.report.vocabulary import Vocabulary

        self._limit = config.max_tokens
        folder = config.directory or config.tokenizer
        self._vocabulary: Vocabulary | None = None
        self.size, self._end = BYTES + 1, BYTES
        if folder:
            try:
                self._vocabulary = Vocabulary.load(Path(folder))
                self.size = self._vocabulary.tokenizer.get_vocab_size()
                self._end = _end_of(Path(folder), self._vocabulary)
            except PackError as error:
                raise RunError(str(error)) from error

    def ids(self, text: str) -> list[int]:
        """At most `max_tokens`, end included."""
        if self._vocabulary is None:
            found = list(text.encode())
        else:
            found = self._vocabulary.encode(text.replace("<|", "< |"))
        return [*found[: self._limit - 1], self._end]


def build_tower(config: TextConfig, vocabulary: int, features: int) -> TextTower:
    """The tower, on the CPU.

    Args:
        config: which model.
        vocabulary: ids that the reports have.
        features: width of the vectors.

    Raises:
        RunError: transformers is not installed, or the directory holds no model.
    """
    try:
        # Imported by name: most of the library carries no annotations.
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise RunError("a text tower needs transformers: install worklist-agent[local]") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of third parties, about settings that we do not use
        if config.directory:
            model = _from_directory(transformers, Path(config.directory))
        else:
            ends = {"bos_token_id": None, "eos_token_id": None}
            settings = {"vocab_size": vocabulary, "use_cache": False, **ends, **config.settings}
            model = transformers.GPT2Model(transformers.GPT2Config(**settings))
    return TextTower(model, int(model.config.hidden_size), features)


def _from_directory(transformers: Any, directory: Path) -> Any:
    if not (directory / "config.json").is_file():
        # A path that is no directory would be taken for the name of a model on the hub.
        raise RunError(f"{directory}: no text model there, config.json is missing")
    try:
        return transformers.AutoModel.from_pretrained(
            str(directory.resolve()),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise RunError(f"{directory.name}: the text model cannot be loaded ({error})") from error


def _end_of(directory: Path, vocabulary: Any) -> int:
    from inference.errors import ConfigError
    from inference.report.language_model import read_endings

    try:
        return read_endings(directory).eos[0]
    except ConfigError:
        found = vocabulary.tokenizer.token_to_id("<|endoftext|>")
        if found is None:
            raise
        return int(found)

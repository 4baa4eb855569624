"""Reads single rows of a language model's input embeddings, without loading the model.

The client of a server that takes whole prompts as embeddings needs a hundred rows of a table that
can be more than a gigabyte; safetensors files give rows by their place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.errors import WeightsError

Float32 = npt.NDArray[np.float32]
KEY = "model.embed_tokens.weight"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class EmbeddingRows:
    """Where a language model's table of input embeddings lies.

    Attributes:
        file: the safetensors file that holds it.
        count: tokens.
        width: of the language model.
    """

    file: Path
    count: int
    width: int

    @staticmethod
    def find(directory: Path) -> EmbeddingRows:
        """Find the table of a Hugging Face model directory.

        Raises:
            WeightsError: the directory holds no safetensors with it.
        """
        from safetensors import SafetensorError, safe_open

        file = directory / _file_name(directory)
        try:
            with safe_open(file, framework="pt") as opened:
                count, width = opened.get_slice(KEY).get_shape()
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"{file.name}: cannot be read or holds no {KEY}; export the language model as "
                "safetensors"
            ) from error
        return EmbeddingRows(file, count, width)

    def rows(self, ids: Sequence[int]) -> Float32:
        """Embeddings of these ids, float32 [len(ids), width].

        Raises:
            WeightsError: an id is not in the table.
        """
        from safetensors import safe_open

        wanted = np.asarray(ids, dtype=np.int64)
        if wanted.size and not 0 <= int(wanted.min()) <= int(wanted.max()) < self.count:
            raise WeightsError(
                f"{self.file.name}: has {self.count} embeddings, the tokenizer asks for id "
                f"{int(wanted.max())}; tokenizer and weights belong to different models"
            )
        unique, places = np.unique(wanted, return_inverse=True)
        with safe_open(self.file, framework="pt") as opened:
            table = opened.get_slice(KEY)
            found = [table[int(i) : int(i) + 1].float().numpy() for i in unique]
        if not found:
            return np.zeros((0, self.width), np.float32)
        return np.concatenate(found)[places]


def _file_name(directory: Path) -> str:
    index = directory / INDEX
    if not index.is_file():
        return SINGLE
    try:
        name: str = json.loads(index.read_text(encoding="utf-8"))["weight_map"][KEY]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{INDEX}: does not say where {KEY} lies; fetch it again") from error
    return Path(name).name

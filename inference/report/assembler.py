"""From a study's visual tokens to the whole prompt that a language model reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inference.report import splicing
from inference.report.embeddings import EmbeddingRows
from inference.report.errors import PromptError
from inference.report.prompt import PromptEmbeddings, PromptStyle, PromptWriter
from inference.report.tokens import VisualTokens
from inference.report.vocabulary import Vocabulary

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PromptAssembler:
    """Assembles prompts for one language model.

    Attributes:
        writer: of the ids.
        embed: ids -> float32 [n, H] of the language model.
        width: H.
    """

    writer: PromptWriter
    embed: Callable[[Sequence[int]], Float32]
    width: int

    @staticmethod
    def load(
        language_model: Path, style: PromptStyle, *, empty_assistant_turn: bool = False
    ) -> PromptAssembler:
        """For a Hugging Face model directory, of which only tokenizer and embeddings are read.

        Raises:
            PackError: (ConfigError, WeightsError) a file is missing or damaged.
            NotAvailableError: the tokenizers library is not installed.
        """
        table = EmbeddingRows.find(language_model)
        writer = PromptWriter(style, Vocabulary.load(language_model), empty_assistant_turn)
        return PromptAssembler(writer, table.rows, table.width)

    def assemble(self, tokens: VisualTokens, indication: str = "") -> PromptEmbeddings:
        """The prompt of one study with its visual tokens in place.

        Raises:
            PromptError: the tokens are of another width or not finite, or the prompt was cut.
        """
        if tokens.width != self.width:
            raise PromptError(
                f"visual tokens are {tokens.width} wide, the language model's are {self.width}: "
                "the pack's connector was trained for another language model"
            )
        if not np.isfinite(tokens.tokens).all():
            raise PromptError("visual tokens hold NaN or infinite values; analyze the study again")
        row = self.writer.ids(len(tokens.series), indication)
        batch = splicing.collate([row], pad_id=0)
        visual = torch.from_numpy(tokens.tokens)
        spliced = splicing.splice(batch, [visual], self._embed, self.writer.image_id)
        # Copies: a view would keep, and serialize, more than this study.
        return PromptEmbeddings(
            spliced.embeds[0].numpy().copy(), spliced.ids[0].numpy().astype(np.int64)
        )

    def _embed(self, ids: Tensor) -> Tensor:
        return torch.from_numpy(self.embed(ids.tolist()))

"""Drafts by a language model in this process: the default where no server is configured."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import torch

from inference import devices, packs
from inference.errors import DeviceError, InferenceError, PackError
from inference.packs import Manifest
from inference.report.answer import SCHEMA, read_answer
from inference.report.assembler import PromptAssembler
from inference.report.decoding import REFERENCE, Decoding
from inference.report.draft import ClinicalContext, Draft
from inference.report.errors import AnswerError, DraftError, PromptError
from inference.report.language_model import LanguageModel
from inference.report.prompt import PromptStyle, PromptWriter
from inference.report.tokens import VisualTokens

log = structlog.get_logger(__name__)

INDICATION_CHARS = 600
"""Longer texts from an order are cut, so that they cannot push the question out of the prompt."""


@dataclass(frozen=True, eq=False)
class LocalDrafter:
    """Writes one draft at a time.

    Attributes:
        model: loaded.
        assembler: of the prompts, for the same model.
        name: shown to the reader as the writer.
        decoding: beams as the reference, or greedy.
        clock: for the time a draft took.
    """

    model: LanguageModel
    assembler: PromptAssembler
    name: str
    decoding: Decoding = REFERENCE
    clock: Callable[[], float] = time.monotonic
    _turn: Any = field(default_factory=threading.Lock, repr=False)

    @staticmethod
    def of(
        model: LanguageModel,
        style: PromptStyle,
        name: str,
        *,
        empty_assistant_turn: bool = False,
        decoding: Decoding = REFERENCE,
    ) -> LocalDrafter:
        """A drafter around a loaded model."""
        writer = PromptWriter(style, model.vocabulary, empty_assistant_turn)
        return LocalDrafter(model, PromptAssembler(writer, model.rows, model.width), name, decoding)

    @staticmethod
    def load(
        directory: Path,
        manifest: Manifest,
        device: torch.device | None = None,
        decoding: Decoding = REFERENCE,
    ) -> LocalDrafter:
        """The drafter of a pack; its language model is loaded onto the device.

        In bfloat16 on a GPU, as it was trained, and in float32 on the CPU.

        Raises:
            PackError: the pack has no [report] section, was altered, or a file does not fit.
            NotAvailableError: transformers is not installed (extra `local`).
        """
        section = manifest.report
        if section is None:
            raise PackError(f"pack {manifest.name}: has no [report] section, it drafts no reports")
        packs.verify(directory)
        target = device or torch.device("cpu")
        model = LanguageModel.load(
            directory / section.language_model,
            target,
            torch.bfloat16 if target.type == "cuda" else torch.float32,
            rounded_buffers=section.rounded_buffers,
        )
        return LocalDrafter.of(
            model,
            PromptStyle.read(directory / section.prompt),
            f"{manifest.name} {manifest.version}",
            empty_assistant_turn=section.empty_assistant_turn,
            decoding=decoding,
        )

    def draft(self, tokens: VisualTokens, context: ClinicalContext, priority_rank: int) -> Draft:
        """Draft one study; waits for the draft before it, whatever the rank.

        Raises:
            DeviceError: the GPU failed; the process must be started anew.
            DraftError: permanent when the prompt or the answer is at fault: decoding does not
                roll dice, so the same study gets the same answer.
        """
        del priority_rank
        started = self.clock()
        with self._turn:
            ids = self._answer(tokens, tidy(context.indication))
        if not self.model.ended(ids):
            raise AnswerError(
                f"no end after {len(ids)} tokens; the language model does not keep to findings"
            )
        answer = read_answer(self.model.vocabulary.decode(ids))
        seconds = round(self.clock() - started, 3)
        log.info("draft_written", count=len(ids), seconds=seconds)
        return answer.to_draft(self.name, seconds)

    def _answer(self, tokens: VisualTokens, indication: str) -> list[int]:
        prompt = self.assembler.assemble(tokens, indication)
        room = self.model.positions - len(prompt.ids)
        if room < self.decoding.max_new_tokens:
            raise PromptError(
                f"a prompt of {len(prompt.ids)} tokens leaves {max(room, 0)} for the answer; the "
                "study has too many series for this language model"
            )
        embeds = torch.from_numpy(prompt.embeds).unsqueeze(0)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        try:
            return self.model.generate(embeds, mask, self.decoding, SCHEMA)[0]
        except DraftError:
            raise
        except (InferenceError, RuntimeError) as error:
            raise _device_error(error) from error


def tidy(indication: str) -> str:
    """The indication as one line of bounded length."""
    return " ".join(indication.split())[:INDICATION_CHARS]


def _device_error(error: Exception) -> DraftError | DeviceError:
    """What a failure of the device means: a broken one must be started anew by its owner."""
    if devices.is_broken(error):
        return DeviceError("the GPU failed while drafting; restart the process, then the driver")
    if isinstance(error, torch.OutOfMemoryError):
        return DraftError(
            "the language model does not fit the device's memory; free it or use a server",
            permanent=False,
        )
    return DraftError(
        f"the language model failed ({type(error).__name__}); try again", permanent=False
    )

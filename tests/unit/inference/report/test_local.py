"""Drafting in this process: only an answer that ended and keeps its form becomes a draft."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from factories.findings_model import LANGUAGE_MODEL, STYLE, visual

from inference.errors import DeviceError
from inference.report.assembler import PromptAssembler
from inference.report.decoding import GREEDY
from inference.report.draft import ClinicalContext
from inference.report.drafter import Drafter
from inference.report.errors import AnswerError, DraftError, PromptError
from inference.report.local import INDICATION_CHARS, LocalDrafter, tidy
from inference.report.vocabulary import Vocabulary

CONTEXT = ClinicalContext(modality="CT", indication="Fall.")
ANSWER = json.dumps({"exam_type": "CT", "findings": ["mass", "pressing"]}, separators=(",", ":"))


class Scripted:
    """A language model that says what the test wants; prompts and decoding are real."""

    width, positions = 64, 4096

    def __init__(
        self, text: str = ANSWER, end: bool = True, error: Exception | None = None
    ) -> None:
        self.vocabulary = Vocabulary.load(LANGUAGE_MODEL)
        self.ids = [*self.vocabulary.encode(text), *([422] if end else [])]
        self.error, self.seen = error, []

    def rows(self, ids: Any) -> np.ndarray:
        """Embeddings of ids."""
        return np.zeros((len(ids), self.width), np.float32)

    def ended(self, ids: list[int]) -> bool:
        """Whether the last token is the end."""
        return ids[-1] == 422

    def generate(self, embeds: torch.Tensor, *_: object) -> list[list[int]]:
        """The scripted answer."""
        self.seen.append(embeds)
        if self.error:
            raise self.error
        return [self.ids]


def drafter(model: Scripted) -> LocalDrafter:
    """A drafter around a scripted model."""
    return LocalDrafter.of(model, STYLE, "findings 1.0.0", decoding=GREEDY)  # type: ignore[arg-type]


def test_an_answer_becomes_a_draft_with_its_writer_s_name() -> None:
    """One sentence a finding; the prompt held the study's tokens."""
    model = Scripted()
    writer: Drafter = drafter(model)
    draft = writer.draft(visual(2), CONTEXT, 0)
    assert [s.text for s in draft.sentences] == ["mass", "pressing"]
    assert draft.model == "findings 1.0.0"
    shown = model.seen[0][0]
    assert torch.equal(
        shown[shown.abs().sum(1) > 0], torch.from_numpy(visual(2).tokens).flatten(0, 1)
    )


@pytest.mark.parametrize(
    ("model", "error"),
    [
        (Scripted(end=False), AnswerError),
        (Scripted(text=ANSWER[:-1]), AnswerError),
        (Scripted(text="Nothing to report."), AnswerError),
        (Scripted(error=RuntimeError("kernel")), DraftError),
    ],
    ids=["broken off", "not JSON", "prose", "failed"],
)
def test_anything_else_is_no_draft(model: Scripted, error: type[DraftError]) -> None:
    """Broken off, not in form, failed: a DraftError, whose text quotes nothing of the answer."""
    with pytest.raises(error) as caught:
        drafter(model).draft(visual(), CONTEXT, 0)
    assert "Nothing" not in str(caught.value)


def test_what_may_pass_is_not_permanent() -> None:
    """Memory that ran out may be there later; a bad answer would be the same again."""
    with pytest.raises(DraftError) as full:
        drafter(Scripted(error=torch.OutOfMemoryError("full"))).draft(visual(), CONTEXT, 0)
    with pytest.raises(DraftError) as wrong:
        drafter(Scripted(end=False)).draft(visual(), CONTEXT, 0)
    assert (full.value.permanent, wrong.value.permanent) == (False, True)


def test_a_broken_device_is_not_a_broken_draft() -> None:
    """The owner of the process must hear of it."""
    kind = getattr(torch, "AcceleratorError", None)
    if kind is None:
        pytest.skip("this torch has no error of its own for devices")
    with pytest.raises(DeviceError):
        drafter(Scripted(error=kind("lost", 1))).draft(visual(), CONTEXT, 0)


def test_a_study_that_leaves_no_room_for_the_answer_is_refused() -> None:
    """A draft that must break off is not begun."""
    model = Scripted()
    model.positions = 300
    with pytest.raises(PromptError, match="too many series"):
        drafter(model).draft(visual(), CONTEXT, 0)


def test_an_indication_is_one_short_line() -> None:
    """It cannot push the question out of the prompt."""
    assert tidy(" Fall\n on\thead. ") == "Fall on head."
    assert len(tidy("word " * 1000)) <= INDICATION_CHARS


def test_prompts_of_this_process_and_of_a_server_are_the_same() -> None:
    """Embeddings read from the file equal those of the loaded model."""
    from inference.report.language_model import LanguageModel

    model = LanguageModel.load(LANGUAGE_MODEL)
    near = LocalDrafter.of(model, STYLE, "x").assembler.assemble(visual(), "Fall.")
    far = PromptAssembler.load(LANGUAGE_MODEL, STYLE).assemble(visual(), "Fall.")
    assert np.array_equal(near.embeds, far.embeds)
    assert np.array_equal(near.ids, far.ids)

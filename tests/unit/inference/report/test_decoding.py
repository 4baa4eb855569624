"""Decoding: answers keep their form under greedy and beams, and never dead-end."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from factories.findings_model import LANGUAGE_MODEL

from inference.errors import NotAvailableError, PackError
from inference.report import decoding as ways
from inference.report.answer import SCHEMA
from inference.report.decoding import Decoding, JsonGuard, RepetitionPenalty, TolerantNgramBan
from inference.report.errors import DraftError
from inference.report.language_model import LanguageModel, read_endings, round_rotary
from inference.report.vocabulary import Vocabulary

LOW = float("-inf")
TEXT = {"type": "string", "minLength": 1, "maxLength": 6}
SHORT = {
    **SCHEMA,
    "properties": {
        "exam_type": TEXT,
        "findings": {"type": "array", "maxItems": 2, "items": TEXT},
    },
}


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """The tiny language model, random weights."""
    torch.set_num_threads(1)
    return LanguageModel.load(LANGUAGE_MODEL)


@pytest.mark.parametrize(
    "way",
    [
        Decoding(max_new_tokens=60),
        Decoding(beams=3, max_new_tokens=60, repetition_penalty=1.2, no_repeat_ngram=4),
    ],
    ids=["greedy", "beams"],
)
def test_a_model_without_sense_still_answers_in_form(model: LanguageModel, way: Decoding) -> None:
    """Random weights, two studies at once: what ended is an instance of the schema."""
    prompts = torch.randn(2, 12, model.width, generator=torch.Generator().manual_seed(3))
    out = model.generate(prompts, torch.ones(2, 12, dtype=torch.long), way, SHORT)
    for ids in out:
        assert model.ended(ids)
        answer = json.loads(model.vocabulary.decode(ids))
        assert set(answer) == {"exam_type", "findings"}
        assert len(answer["findings"]) <= 2


def test_the_form_holds_when_beams_change_places(model: LanguageModel) -> None:
    """The guard knows a row by its tokens, not by its number."""
    guard = JsonGuard(model.vocabulary, SCHEMA, model.endings.eos[0], 512)
    start = model.vocabulary.encode('{"exam_type":"')
    rows = [[start[0]], [start[0]]]
    for token in start[1:]:
        guard(torch.tensor(rows), torch.zeros(2, 512))
        rows = [[*rows[1], token], [*rows[0], token]]
    scores = guard(torch.tensor(rows), torch.zeros(2, 512))
    assert torch.equal(scores[0], scores[1])
    assert scores[0][model.endings.eos[0]] == LOW
    with pytest.raises(DraftError, match="form"):
        guard(torch.tensor([[*rows[0], model.endings.eos[0]]]), torch.zeros(1, 512))


def test_the_first_call_may_hold_no_token(model: LanguageModel) -> None:
    """With embeddings as the prompt transformers starts from nothing."""
    guard = JsonGuard(model.vocabulary, SCHEMA, model.endings.eos[0], 512)
    scores = guard(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 512))
    allowed = [model.vocabulary.decode([i]) for i in (scores[0] > LOW).nonzero().flatten()]
    assert allowed
    assert all('{"exam_type":"'.startswith(text) for text in allowed)


def test_a_repeated_ngram_is_banned_unless_nothing_else_is_left() -> None:
    """A form that allows one token must get it."""
    row = torch.tensor([[1, 2, 3, 1, 2]])
    free = TolerantNgramBan(3)(row, torch.zeros(1, 5))
    assert free[0].tolist() == [0, 0, 0, LOW, 0]
    only = torch.full((1, 5), LOW).index_fill_(1, torch.tensor([3]), 0.5)
    assert torch.equal(TolerantNgramBan(3)(row, only), only)
    assert ways.repeated([1, 2], 4) == []


def test_the_penalty_sees_generated_tokens_only() -> None:
    """Rows share their padding's length among beams; its first tokens are not penalized."""
    ids = torch.tensor([[0, 1], [0, 1], [0, 1], [0, 1]])
    scores = torch.tensor([[2.0, -2.0, 1.0]]).repeat(4, 1)
    found = RepetitionPenalty(2.0, (0, 1))(ids, scores)
    assert found[:2].tolist() == [[1.0, -4.0, 1.0]] * 2
    assert found[2:].tolist() == [[2.0, -4.0, 1.0]] * 2
    nothing = RepetitionPenalty(2.0)(torch.zeros(4, 0, dtype=torch.long), scores)
    assert torch.equal(nothing, scores)


def test_rotary_tables_are_rounded_once_and_in_place(model: LanguageModel) -> None:
    """To what bfloat16 holds; a second time changes nothing."""
    loaded = LanguageModel.load(LANGUAGE_MODEL).model
    before = loaded.model.rotary_emb.inv_freq.clone()
    assert round_rotary(loaded) >= 1
    after = loaded.model.rotary_emb.inv_freq
    assert torch.equal(after, before.to(torch.bfloat16).float())
    assert not torch.equal(after, before)


def test_no_model_is_fetched(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is not there is an error, not the name of a model on the hub."""
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(PackError, match=r"config\.json is missing"):
        LanguageModel.load(tmp_path / "Qwen")
    assert LanguageModel.load(LANGUAGE_MODEL).width == 64


def test_weights_that_do_not_fit_are_refused(tmp_path: Any) -> None:
    """The library would go on with random weights and a warning."""
    from safetensors.torch import load_file, save_file

    for item in LANGUAGE_MODEL.iterdir():
        if item.name != "model.safetensors":
            (tmp_path / item.name).symlink_to(item.resolve())
    state = load_file(LANGUAGE_MODEL / "model.safetensors")
    state["model.layers.1.mlp.odd.weight"] = state.pop("model.layers.1.mlp.up_proj.weight")
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(PackError, match=r"up_proj.*"):
        LanguageModel.load(tmp_path)


def test_endings_come_from_the_generation_settings_first() -> None:
    """They may name more ends than the model's configuration."""
    assert read_endings(LANGUAGE_MODEL).eos == (422, 420)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is in the message."""
    import sys

    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(NotAvailableError, match=r"worklist-agent\[local\]"):
        JsonGuard(Vocabulary.load(LANGUAGE_MODEL), SCHEMA, 422, 512)

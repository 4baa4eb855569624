"""Instruction tuning in miniature, on the golden tiny Qwen3: both stages, LoRA, and the pack."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import findings_model
from factories.training import TINY_ENCODER, token_cache

from inference import packs
from inference.checkpoints import read_state_dict
from inference.neurovfm import load_vlm
from inference.neurovfm.model import build_encoder
from inference.neurovfm.official import Identity
from inference.report.prompt import IGNORED, PromptStyle, PromptWriter
from inference.report.vocabulary import Vocabulary
from training.data.errors import DataError
from training.data.shards import Cache
from training.data.table import StudyRow
from training.instruction import recipe
from training.instruction.conversations import Conversation, Turn, read_conversations, taught
from training.instruction.recipe import InstructionRun, Parts, tune

STYLE = PromptStyle("Be brief.", "List findings.", "For: {indication}", "Use JSON.")
RUN = InstructionRun(
    connector={
        "serie_perceiver": {"perceiver_cfg": {"num_queries": 4, "num_layers": 1, "num_heads": 4}},
    },
    accumulate=2,
    epochs=8,
    peak=5e-3,
    cycles=0.5,
    device="cpu",
)
ANSWERS = ({"exam_type": "MR", "findings": []}, {"exam_type": "CT", "findings": ["Blood."]})


@pytest.fixture(autouse=True)
def _one_thread(_two_threads: None) -> None:
    """Tensors this small gain nothing from a second one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Studies s0 (MR), s1 (CT), ..."""
    return token_cache(tmp_path_factory.mktemp("tokens"), studies=4)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """A fresh encoder and the golden language model."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    (folder / "config.json").write_text(json.dumps(TINY_ENCODER))
    state = build_encoder(TINY_ENCODER).state_dict()
    torch.save({"state_dict": state}, folder / "pytorch_model.bin")
    return Parts(folder, findings_model.LANGUAGE_MODEL, STYLE)


@pytest.fixture
def writer() -> PromptWriter:
    """Of the golden vocabulary."""
    return PromptWriter(STYLE, Vocabulary.load(findings_model.LANGUAGE_MODEL))


def told(count: int = 4) -> list[Conversation]:
    """One conversation a study; the answer names its modality."""
    return [Conversation(f"s{n}", (Turn("", json.dumps(ANSWERS[n % 2])),)) for n in range(count)]


def test_both_stages_end_in_a_directory_that_loads_and_imports(
    cache: Cache, parts: Parts, tmp_path: Path
) -> None:
    """Stage 1 leaves the language model as it was, stage 2 moves it; the pack verifies."""
    first = tune(cache, told(), parts, RUN, tmp_path / "one")
    before = tmp_path / "one" / recipe.MODEL
    second = tune(
        cache,
        told(),
        replace(parts, before=before),
        replace(RUN, stage=2, epochs=4, peak=2e-3),
        tmp_path / "two",
    )
    model = tmp_path / "two" / recipe.MODEL
    original, kept, moved = (
        read_state_dict(folder / "model.safetensors")
        for folder in (
            parts.language_model,
            before / "language_model",
            model / "language_model",
        )
    )
    recipe.write_pack(model, tmp_path / "pack", Identity("site-vlm", "1.0.0"))
    load_vlm(model, device="cpu")

    assert np.mean(first[-3:]) < 0.9 * np.mean(first[:3])
    assert np.mean(second[-2:]) < np.mean(second[:2])
    assert all(torch.equal(original[key], kept[key]) for key in original)
    assert any(not torch.equal(original[key], moved[key]) for key in original)
    packs.verify(tmp_path / "pack")
    section = packs.load_manifest(tmp_path / "pack").report
    assert section is not None
    assert (section.empty_assistant_turn, section.rounded_buffers) == (False, False)
    assert PromptStyle.read(tmp_path / "pack" / section.prompt) == STYLE


def test_low_rank_additions_are_merged_into_the_language_model(
    cache: Cache, parts: Parts, tmp_path: Path
) -> None:
    """Same keys as before, other values, and nothing of peft in the directory."""
    pytest.importorskip("peft")
    run = replace(RUN, stage=2, lora_rank=2, epochs=3)
    losses = tune(cache, told(), parts, run, tmp_path)
    folder = tmp_path / recipe.MODEL / "language_model"
    original = read_state_dict(parts.language_model / "model.safetensors")
    made = read_state_dict(folder / "model.safetensors")

    assert losses[-1] < losses[0]
    assert set(made) == set(original)
    key = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(made[key], original[key])
    assert not list(folder.glob("adapter*"))


def test_a_stopped_stage_goes_on_where_it_was(cache: Cache, parts: Parts, tmp_path: Path) -> None:
    """The checkpoint holds the connector alone: what learns."""
    run = replace(RUN, epochs=2, cycles=0.0, warm_up=0.0)
    whole = tune(cache, told(), parts, run, tmp_path / "whole")
    first = tune(cache, told(), parts, replace(run, epochs=1), tmp_path / "parts")
    rest = tune(cache, told(), parts, run, tmp_path / "parts")
    state = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)

    assert first + rest == pytest.approx(whole, rel=1e-5)
    assert all(key.startswith("connector.") for key in state["model"])


def test_only_answers_are_learned(writer: PromptWriter) -> None:
    """Of every turn; images stand once, before the first question."""
    turns = (Turn("What is seen?", "Blood."), Turn("Where?", "Left."))
    written = taught(writer, 3, Conversation("s", turns))
    assert written is not None
    ids, labels = written
    learned = [i for i, label in zip(ids, labels, strict=True) if label != IGNORED]
    wanted = [
        i for text in ("Blood.", "Left.") for i in writer.vocabulary.encode(text + "<|im_end|>\n")
    ]

    assert learned == wanted
    assert ids.count(writer.image_id) == 3
    own = taught(writer, 2, Conversation("s", (Turn("", "Blood."),), "Fall."))
    assert own == writer.taught(2, "Fall.", "Blood.")


def test_what_does_not_fit_is_not_taught(writer: PromptWriter) -> None:
    """A prompt cut inside its images, or before its answer, would teach nothing or fail."""
    tight = replace(writer, style=replace(STYLE, max_tokens=12))
    assert taught(tight, 2, Conversation("s", (Turn("", "Blood."),))) is None


def test_conversations_name_a_study_or_its_images(tmp_path: Path) -> None:
    """Either key, either vocabulary of roles; questions and answers must take turns."""
    (tmp_path / "s1").mkdir()
    row = StudyRow("s1", tmp_path / "s1", "p")
    asked = [{"from": "human", "value": "<image>\nSeen?"}, {"from": "gpt", "value": "No."}]
    answered = [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": {"findings": []}},
    ]
    entries: list[dict[str, Any]] = [
        {"study": "s0", "conversations": asked},
        {"image": ["s1/a.nii"], "messages": answered},
    ]
    file = tmp_path / "c.json"
    file.write_text(json.dumps(entries))
    assert read_conversations(file, [row]) == [
        Conversation("s0", (Turn("Seen?", "No."),)),
        Conversation("s1", (Turn("", '{"findings": []}'),)),
    ]
    file.write_text(json.dumps([{"image": "elsewhere.nii", "conversations": asked}]))
    with pytest.raises(DataError, match="no study of the table"):
        read_conversations(file, [row])
    asked.reverse()
    file.write_text(json.dumps(entries[:1]))
    with pytest.raises(DataError, match="take turns"):
        read_conversations(file)

"""Golden case n4 through the official interface: `load_vlm` as a user of the reference calls it."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from factories import findings_model, golden

from inference.checkpoints import read_state_dict
from inference.errors import NotAvailableError, PackError
from inference.findings import Acuity
from inference.neurovfm import StudyPreprocessor, interpret_findings, load_vlm
from inference.neurovfm.vlm import (
    FindingsGenerationPipeline,
    reference_text,
    series_of_studies,
)
from inference.report import official
from inference.report.decoding import GREEDY
from inference.report.draft import Triage
from inference.report.parity import PLAIN

META = findings_model.META
INPUT = golden.case("n1_preprocess") / "input"
SINGLE = golden.arrays(findings_model.CASE / "f32_single.npz")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official directory, with the wording beside it."""
    whole = findings_model.checkpoint(tmp_path_factory.mktemp("whole"))
    folder = findings_model.as_official(tmp_path_factory.mktemp("vlm") / "official", whole)
    wording = json.dumps(dataclasses.asdict(findings_model.STYLE))
    (folder / "prompt.json").write_text(wording, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> tuple[FindingsGenerationPipeline, StudyPreprocessor]:
    """The generator and its preprocessor."""
    torch.set_num_threads(1)
    return load_vlm(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def batch(loaded: tuple[FindingsGenerationPipeline, StudyPreprocessor]) -> dict[str, Any]:
    """Study A of the case, from its image files."""
    names = [Path(path).name for path in META["f32_single"]["info"]["series"][0]["path"]]
    return loaded[1].load_study([INPUT / name for name in names], modality="mri")


def test_image_files_become_the_reference_s_visual_tokens(
    loaded: tuple[FindingsGenerationPipeline, StudyPreprocessor], batch: dict[str, Any]
) -> None:
    """From NIfTI to the language model's width within 1e-5, and then the same tokens."""
    generator, _ = loaded
    (visual,) = generator.visual_tokens(batch)
    np.testing.assert_allclose(visual.flatten(0, 1), SINGLE["projected_0"], rtol=0, atol=1e-5)
    prompts = generator.splice([visual], [""])
    ids = generator.language_model.generate(prompts.embeds, prompts.mask, PLAIN)
    assert ids == SINGLE["generated_greedy16"].tolist()


@pytest.mark.parametrize(
    ("name", "series", "context"),
    [("f32_single", 3, ""), ("f32_single_context", 3, "Left temporal lobe lesion.")],
)
def test_the_prompt_reads_as_the_reference_s(
    loaded: tuple[FindingsGenerationPipeline, StudyPreprocessor],
    name: str,
    series: int,
    context: str,
) -> None:
    """Letter by letter, the closed assistant turn included."""
    writer = loaded[0].writer
    text = writer.vocabulary.tokenizer.decode(
        writer.ids(series, context), skip_special_tokens=False
    )
    assert text == META[name]["info"]["prompt_text"][0]


def test_generate_gives_a_text_in_the_reference_s_form(
    loaded: tuple[FindingsGenerationPipeline, StudyPreprocessor], batch: dict[str, Any]
) -> None:
    """One study, one text; the weights are random, so is what it says."""
    short = dataclasses.replace(GREEDY, max_new_tokens=120)
    text = loaded[0].generate(batch, "LOC and nausea.", decoding=short)
    assert isinstance(text, str)
    assert text
    assert text.startswith(("Detected Study Type:\n", '{"exam_type":"'))


def test_an_empty_last_series_is_no_riddle(
    loaded: tuple[FindingsGenerationPipeline, StudyPreprocessor], batch: dict[str, Any]
) -> None:
    """The reference fails on it; it is shown as the projection of zeros."""
    generator, _ = loaded
    edges = batch["series_cu_seqlens"]
    longer = {
        **batch,
        "series_cu_seqlens": torch.cat((edges, edges[-1:])),
        "mode": [*batch["mode"], "mri"],
        "path": [*batch["path"], "empty"],
    }
    (visual,) = generator.visual_tokens(longer)
    assert torch.allclose(visual[:3], generator.visual_tokens(batch)[0], atol=1e-6)
    zeros = torch.zeros(visual.shape[1], generator.connector.config.vision_dim)
    assert torch.allclose(visual[3], generator.connector.mlp(zeros), atol=1e-6)


def test_series_belong_to_the_study_that_owns_them() -> None:
    """By token bounds; where an empty series lies on a border the batch must say."""

    def bounds(series: list[int], studies: list[int], **more: Any) -> list[int]:
        cu = {"series_cu_seqlens": torch.tensor(series), "study_cu_seqlens": torch.tensor(studies)}
        return series_of_studies({**cu, **more})

    assert bounds([0, 3, 3, 5, 9], [0, 5, 9]) == [3, 1]
    assert bounds([0, 3, 3], [0, 3]) == [2]
    with pytest.raises(ValueError, match="series_per_study"):
        bounds([0, 3, 3, 5], [0, 3, 5])
    assert bounds([0, 3, 3, 5], [0, 3, 5], series_per_study=[2, 1]) == [2, 1]
    with pytest.raises(ValueError, match="does not fit"):
        bounds([0, 3, 3, 5], [0, 3, 5], series_per_study=[2, 2])


def test_encoder_keys_without_their_prefix_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    """The reference would keep its random encoder and say nothing."""
    folder = findings_model.as_official(tmp_path / "bare", checkpoint)
    state = read_state_dict(checkpoint / "vision_encoder.pt")
    bare = {key.removeprefix("encoder."): value for key, value in state.items()}
    findings_model.rewrite(folder / "vision_encoder.pt", bare)
    with pytest.raises(PackError, match=r"encoder\."):
        load_vlm(folder, device="cpu")


@pytest.mark.parametrize("name", ["vision_encoder.pt", "vision_connector.pt", "language_model"])
def test_every_part_must_be_there(checkpoint: Path, tmp_path: Path, name: str) -> None:
    """The reference goes on without; the message names what is missing."""
    folder = findings_model.as_official(tmp_path / "part", checkpoint)
    (folder / name).unlink()
    with pytest.raises(PackError, match=name.split(".", maxsplit=1)[0]):
        load_vlm(folder, device="cpu")


def test_a_key_beside_the_reference_s_own_is_passed_over_aloud(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Tools of a hub add keys; inside the three configurations an unknown one is an error."""
    settings = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    folder = findings_model.as_official(tmp_path / "more", checkpoint, model_type="neurovfm")
    with structlog.testing.capture_logs() as logs:
        official.read_findings_model(folder)
    assert [entry["reason"] for entry in logs] == ["model_type"]
    connector = {**settings["vision_connector_cf"], "gate": True}
    odd = findings_model.as_official(tmp_path / "odd", checkpoint, vision_connector_cf=connector)
    with pytest.raises(PackError, match="gate"):
        load_vlm(odd, device="cpu")


def test_texts_are_worded_as_the_reference_words_them() -> None:
    """JSON in its form, other text as it is, missing keys as a KeyError."""
    assert reference_text(' {"exam_type": "CT", "findings": "Mass."} ').endswith("1. Mass.")
    assert reference_text('{"exam_type": "CT", "findings": []}').endswith("is unremarkable.")
    assert reference_text('{"exam_type": "CT", "find') == '{"exam_type": "CT", "find'
    with pytest.raises(KeyError):
        reference_text('{"exam_type": "CT"}')


def test_findings_are_interpreted_only_where_a_client_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An API key alone sends nothing anywhere."""
    with pytest.raises(NotAvailableError, match="client"):
        interpret_findings("Findings:\n1. Mass.", "Headache.", "a-key")
    asked = []
    stub = types.ModuleType("triage")
    opinion = Triage(Acuity.URGENT, "Mass.", "tiny")
    stub.interpret = lambda text, client: asked.append((text, client)) or opinion  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "inference.report.triage", stub)
    assert interpret_findings("Mass.", "Headache.", client="c") is opinion
    assert asked == [("Indication: Headache.\n\nMass.", "c")]

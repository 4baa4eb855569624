"""The golden findings model as a pack: imported, verified, shown a study from DICOM files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import findings_model, golden
from typer.testing import CliRunner

from agent import cli
from inference import packs
from inference.engine import Engine
from inference.errors import InferenceError, PackError
from inference.findings import Status
from inference.neurovfm import load_vlm
from inference.report.decoding import GREEDY
from inference.report.draft import ClinicalContext, Draft, Source
from inference.report.errors import AnswerError
from inference.report.local import LocalDrafter
from inference.report.pack_section import Transport
from inference.report.prompt import PromptStyle
from inference.study import SeriesInput, StudyInput

INPUT = golden.case("n1_preprocess") / "input" / "dicom_ct_series"
TOKENS = golden.case("n1_preprocess") / "study_dicom_series_dirs_in_list_ct.npz"
STUDY = StudyInput(
    "1.2.3", "CT", (SeriesInput("1.2.3.4", "CT", "", tuple(sorted(INPUT.iterdir()))),)
)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official directory, without its wording."""
    torch.set_num_threads(1)
    return findings_model.checkpoint(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def pack(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`packs import neurovfm-vlm` of the golden checkpoint."""
    place = tmp_path_factory.mktemp("packs")
    wording = place / "wording.json"
    wording.write_text(json.dumps(dataclasses.asdict(findings_model.STYLE)), encoding="utf-8")
    options = ["--out", place / "tiny", "--name", "tiny", "--prompt", wording]
    arguments = ["packs", "import", "neurovfm-vlm", str(official), *map(str, options)]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert "CC-BY-NC-SA-4.0" in result.output
    return place / "tiny"


def test_the_pack_holds_every_part_with_its_hash(pack: Path) -> None:
    """Encoder, connector, language model and wording; no pickle and no code."""
    manifest = packs.load_manifest(pack)
    packs.verify(pack)
    section = manifest.report
    assert section is not None
    assert (section.empty_assistant_turn, section.rounded_buffers) == (True, True)
    assert section.transport is Transport.PROMPT_EMBEDS
    assert manifest.heads == ()
    assert PromptStyle.read(pack / section.prompt) == findings_model.STYLE
    on_disk = {str(f.relative_to(pack)) for f in pack.rglob("*") if f.is_file()}
    assert on_disk == {file.path for file in manifest.files} | {packs.MANIFEST}
    assert not [name for name in on_disk if name.endswith((".pt", ".bin", ".py"))]


def test_the_engine_shows_a_study_as_the_official_interface_does(
    pack: Path, official: Path
) -> None:
    """DICOM through the agent's own path, and the golden tokens of the same series."""
    shown = Engine([pack], device="cpu").visual_tokens(STUDY, "tiny")
    facts = golden.meta("n1_preprocess")["studies"]["dicom_series_dirs_in_list_ct"]
    batch = {key: torch.from_numpy(values) for key, values in golden.arrays(TOKENS).items()}
    batch |= {"mode": facts["mode"], "path": facts["path"]}
    generator, _ = load_vlm(
        official, device="cpu", prompt=findings_model.STYLE, rounded_buffers=True
    )
    (wanted,) = generator.visual_tokens(batch)
    assert shown.series == ("1.2.3.4",) * 3
    np.testing.assert_allclose(shown.tokens, wanted, rtol=0, atol=1e-5)


def test_a_pack_without_heads_diagnoses_nothing_and_says_so(pack: Path) -> None:
    """It is there to draft."""
    findings = Engine([pack], device="cpu").analyse(STUDY, "tiny")
    assert findings.status is Status.NOT_ATTEMPTED
    assert "does not read CT" in findings.reason


def test_the_pack_drafts_in_this_process_or_says_why_not(pack: Path) -> None:
    """Its weights are random: a draft in form, or a refusal for good; the same every time."""
    drafter = LocalDrafter.load(pack, packs.load_manifest(pack), decoding=GREEDY)

    def outcome() -> Draft | str:
        try:
            draft = drafter.draft(findings_model.visual(), ClinicalContext("CT"), 0)
        except AnswerError as error:
            return f"{error} permanent={error.permanent}"
        assert (draft.source, draft.model) == (Source.MODEL, "tiny 1.0.0")
        return dataclasses.replace(draft, seconds=0.0)

    first = outcome()
    assert first == outcome()
    assert isinstance(first, Draft) or first.endswith("permanent=True")


def test_an_altered_pack_is_refused(pack: Path, tmp_path: Path) -> None:
    """A byte of the language model is enough."""
    copy = tmp_path / "altered"
    (copy / "language_model").mkdir(parents=True)
    for file in packs.load_manifest(pack).files:
        (copy / file.path).parent.mkdir(exist_ok=True)
        (copy / file.path).write_bytes((pack / file.path).read_bytes())
    (copy / packs.MANIFEST).write_bytes((pack / packs.MANIFEST).read_bytes())
    packs.verify(copy)
    weights = copy / "language_model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(PackError, match="language_model"):
        packs.verify(copy)


def test_an_import_without_the_wording_is_refused(official: Path, tmp_path: Path) -> None:
    """A model that was taught one wording must not be asked in another by oversight."""
    options = ["--out", str(tmp_path / "p"), "--name", "p"]
    arguments = ["packs", "import", "neurovfm-vlm", str(official), *options]
    refused = CliRunner().invoke(cli.app, arguments)
    assert refused.exit_code == 2
    assert "--prompt" in refused.output
    assert not (tmp_path / "p").exists()
    own = CliRunner().invoke(cli.app, [*arguments, "--own-prompt"])
    assert own.exit_code == 0
    assert PromptStyle.read(tmp_path / "p" / "prompt.json").system == findings_model.STYLE.system


def test_a_pack_that_drafts_nothing_is_told_apart(tmp_path: Path) -> None:
    """Asked for visual tokens it says that it has no [report] section."""
    from factories.model_packs import bright_pack

    engine = Engine([bright_pack(tmp_path / "bright")], device="cpu")
    with pytest.raises(InferenceError, match=r"\[report\]"):
        engine.visual_tokens(STUDY, "bright")

"""The published pipeline's configuration files: accepted as they are, else the key is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference.errors import ConfigError, InferenceError
from inference.prima import predictions
from inference.prima.config import Components, read_config
from inference.prima.preparation import OFFICIAL_DESCRIPTION

TOKENIZER = {"spatial_dims": 3, "ckpt_path": "vqvae.pth"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository as the published one lies: configs, weights, a study."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "study" / "1").mkdir(parents=True)
    for name in ("vqvae.pth", "full.pt", "clip.pt", "priority.pt", "a.pt", "b.pt"):
        (tmp_path / "configs" / name).touch()
    write(tmp_path / "configs" / "tokenizer.json", {"vqvae_config": TOKENIZER})
    write(tmp_path / "configs" / "prima.json", {"_comment": "x", "full_model_ckpt": "full.pt"})
    return tmp_path


def write(file: Path, settings: Any) -> Path:
    """Settings as YAML or JSON, by the file's suffix."""
    dump = json.dumps if file.suffix == ".json" else yaml.safe_dump
    file.write_text(dump(settings), encoding="utf-8")
    return file


def pipeline(folder: Path, suffix: str = ".yaml", **changes: Any) -> Path:
    """The sample pipeline configuration with changes; None takes a key out."""
    settings = {
        "study_dir": "../study",
        "output_dir": str(folder / "out"),
        "study_description": "MRI BRAIN WO AND W CONTRAST",
        "tokenizer_model_config": "tokenizer.json",
        "prima_model_config": "prima.json",
        "batch_size": 1,
        "num_workers": 0,
        "device": "cpu",
    } | changes
    kept = {key: value for key, value in settings.items() if value is not None}
    return write(folder / "configs" / f"pipeline{suffix}", kept)


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_the_sample_configuration_is_read(folder: Path, suffix: str):
    """YAML and JSON, every path found."""
    config = read_config(pipeline(folder, suffix))
    assert config.study_dir.resolve() == folder / "study"
    assert config.tokenizer_weights == folder / "configs" / "vqvae.pth"
    assert config.model == folder / "configs" / "full.pt"
    assert config.study_description == "MRI BRAIN WO AND W CONTRAST"
    assert config.device == "cpu"
    assert config.predictions_file == folder / "out" / "study_predictions.json"


def test_paths_may_be_relative_to_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """As the published pipeline is run from its repository's root."""
    monkeypatch.chdir(folder)
    file = pipeline(
        folder,
        study_dir="study",
        tokenizer_model_config="configs/tokenizer.json",
        prima_model_config="configs/prima.json",
    )
    assert read_config(file).study_dir.samefile(folder / "study")


@pytest.mark.parametrize("key", ["vqvae_config", "model"])
def test_configurations_may_stand_inside(folder: Path, key: str):
    """Objects in place of files; the tokenizer's under either published key."""
    file = pipeline(
        folder,
        tokenizer_model_config={key: TOKENIZER},
        prima_model_config={"full_model_ckpt": "full.pt"},
    )
    assert read_config(file).tokenizer == TOKENIZER


def test_the_tokenizer_may_stand_at_the_top(folder: Path):
    """`vqvae_config` in the pipeline's own file."""
    file = pipeline(folder, tokenizer_model_config=None, vqvae_config=TOKENIZER)
    assert read_config(file).tokenizer == TOKENIZER


def test_without_a_description_the_published_one_is_taken(folder: Path):
    """The model always reads one."""
    file = pipeline(folder, study_description=None)
    assert read_config(file).study_description == OFFICIAL_DESCRIPTION


def test_a_model_may_come_in_parts(folder: Path):
    """CLIP checkpoint, heads lists and priority head; the first entry of a name counts."""
    configs = folder / "configs"
    write(configs / "diagnoses.json", {"x": ["labels/x.txt", [["a.pt", 3, -0.4], ["b.pt", 1, 0]]]})
    write(configs / "referrals.json", {"y": ["labels/y.txt", [["b.pt", 0, 0.2]]]})
    write(
        configs / "parts.json",
        {
            "clip_ckpt": "clip.pt",
            "diagnosis_heads_json": "diagnoses.json",
            "referral_heads_json": "referrals.json",
            "priority_head_ckpt": "priority.pt",
        },
    )
    found = read_config(pipeline(folder, prima_model_config="parts.json")).model
    assert isinstance(found, Components)
    (head,) = found.diagnoses
    assert (head.name, head.path, head.index, head.threshold) == ("x", configs / "a.pt", 3, -0.4)
    assert found.priority == configs / "priority.pt"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"study_dir": "nowhere"}, "study_dir: nowhere"),
        ({"study_dir": None}, "study_dir"),
        ({"output_dir": None}, "output_dir"),
        ({"prima_model_config": None}, "prima_model_config"),
        ({"tokenizer_model_config": None}, "tokenizer_model_config"),
        ({"tokenizer_model_config": {}}, "vqvae_config"),
        ({"tokenizer_model_config": {"vqvae_config": {}}}, "ckpt_path"),
        ({"tokenizer_model_config": 3}, "tokenizer_model_config"),
        ({"prima_model_config": {"full_model_ckpt": "missing.pt"}}, "missing.pt"),
        ({"prima_model_config": {"clip_ckpt": "clip.pt"}}, "diagnosis_heads_json"),
        ({"study_desciption": "typing error"}, "study_desciption"),
        ({"study_description": 7}, "study_description"),
    ],
)
def test_what_is_missing_or_wrong_is_named(folder: Path, changes: dict[str, Any], named: str):
    """Nothing is guessed: no random tokenizer, no silent default for a typing error."""
    with pytest.raises(ConfigError, match=named):
        read_config(pipeline(folder, **changes))


@pytest.mark.parametrize("text", ["{", "- a\n- b", "a: [", "\x00"])
def test_files_that_are_no_configuration_are_refused(tmp_path: Path, text: str):
    """Neither YAML nor keys and values."""
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"pipeline\.yaml"):
        read_config(file)


@pytest.mark.parametrize("heads", [{}, {"x": ["l.txt", []]}, {"x": [["a.pt", "b.pt"], ["a", "b"]]}])
def test_heads_lists_of_another_format_are_refused(folder: Path, heads: dict[str, Any]):
    """Evaluation lists look alike and mean something else."""
    configs = folder / "configs"
    write(configs / "heads.json", heads)
    parts = {
        "clip_ckpt": "clip.pt",
        "diagnosis_heads_json": "heads.json",
        "referral_heads_json": "heads.json",
        "priority_head_ckpt": "priority.pt",
    }
    with pytest.raises(ConfigError, match=r"heads\.json"):
        read_config(pipeline(folder, prima_model_config=parts))


def test_predictions_have_the_published_layout(tmp_path: Path):
    """Every score in a list of one, the embedding in a list of lists, and no half-written file."""
    result = predictions.document({"a": 0.5}, {"b": -1}, {"none": 1, "high": 2}, [0.25, 1])
    file = tmp_path / "new" / "study_predictions.json"
    predictions.write(result, file)
    assert json.loads(file.read_text()) == {
        "diagnosis": {"a": [0.5]},
        "referral": {"b": [-1.0]},
        "priority": {"none": [1.0], "high": [2.0]},
        "clip_emb": [[0.25, 1.0]],
    }
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_value_that_is_no_number_is_never_written():
    """NaN is no JSON, and no score."""
    with pytest.raises(InferenceError, match="no numbers"):
        predictions.document({"a": float("nan")}, {}, {}, [0.0])

"""`worklist-agent prima run` on the golden study: the reference's predictions file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import Result
from factories import golden
from typer.testing import CliRunner

from agent import cli

STUDY = golden.case("p1_prima_preprocess") / "study_SYN001"
TOKENIZER = golden.case("p2_vqvae") / "config.json"
MODEL = golden.case("p4_full_model")
COMPONENTS = MODEL / "components_small" / "prima_config_components.json"
whole = pytest.mark.skipif(
    not all(path.exists() for path in (STUDY / "2_ax", TOKENIZER, COMPONENTS)),
    reason="the committed subset holds neither the whole study nor the checkpoint",
)


def run(*arguments: str | Path) -> Result:
    """`worklist-agent prima run ARGUMENTS`."""
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(cli.app, ["prima", "run", *map(str, arguments)], env=environment)


def configuration(folder: Path, **changes: object) -> Path:
    """The pipeline configuration of the golden case."""
    settings = {
        "study_dir": str(STUDY),
        "output_dir": str(folder / "out"),
        "tokenizer_model_config": str(TOKENIZER),
        "prima_model_config": str(MODEL / "prima_config.json"),
        "study_description": "MRI BRAIN WO AND W CONTRAST",
        "device": "cpu",
        "num_workers": 0,
    }
    file = folder / "pipeline.yaml"
    file.write_text(yaml.safe_dump(settings | changes), encoding="utf-8")
    return file


@whole
def test_the_predictions_file_is_the_references(tmp_path: Path):
    """The same keys in the same order, every number within the case's tolerance."""
    result = run("--config", configuration(tmp_path))
    assert result.exit_code == 0, result.output
    facts = golden.meta("p4_full_model")
    close = golden.tolerance(facts["tolerance"].split(";")[0])
    file = tmp_path / "out" / "study_SYN001_predictions.json"
    written = json.loads(file.read_text(encoding="utf-8"))
    assert list(written) == list(facts["predictions"])
    for kind in ("diagnosis", "referral", "priority"):
        wanted = facts["predictions"][kind]
        assert list(written[kind]) == list(wanted)
        np.testing.assert_allclose(list(written[kind].values()), list(wanted.values()), **close)
    np.testing.assert_allclose(written["clip_emb"], facts["predictions"]["clip_emb"], **close)
    for said in ("tumor_adult_glioma", "priority: medium", "skipped 6_empty", "Research use only"):
        assert said in result.output


@whole
def test_a_model_in_parts_runs_and_prints_json(tmp_path: Path):
    """Where the reference cannot load its own components; another output directory."""
    file = configuration(tmp_path, prima_model_config=str(COMPONENTS), output_dir="unused")
    result = run("--config", file, "--output-dir", tmp_path / "other", "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    scores = [v for k in ("diagnosis", "referral", "priority") for (v,) in printed[k].values()]
    wanted = golden.arrays(MODEL / "data.npz")["components_small"]
    np.testing.assert_allclose(scores, wanted, rtol=1e-3, atol=1e-4)
    assert [path.name for path in (tmp_path / "other").iterdir()] == [
        "study_SYN001_predictions.json"
    ]


def test_what_is_wrong_in_the_configuration_is_told(tmp_path: Path):
    """One sentence on standard error and exit status 1; a missing file is wrong usage."""
    result = run("--config", configuration(tmp_path, prima_model="x.json"))
    assert result.exit_code == 1
    assert "unknown key 'prima_model'" in result.output
    assert run("--config", tmp_path / "none.yaml").exit_code == 2


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path):
    """No traceback, and nothing is written."""
    (tmp_path / "model.pt").write_bytes(b"no checkpoint")
    (tmp_path / "vqvae.pth").write_bytes(b"no checkpoint")
    file = configuration(
        tmp_path,
        study_dir=str(tmp_path),
        tokenizer_model_config={"vqvae_config": {"ckpt_path": "vqvae.pth"}},
        prima_model_config={"full_model_ckpt": "model.pt"},
    )
    result = run("--config", file)
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert not (tmp_path / "out").exists()

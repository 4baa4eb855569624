"""The stages on the command line, one after the other: a table of DICOM studies ends as a pack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from factories import dicom
from typer.testing import CliRunner

from agent.cli import app
from inference import packs
from training.data.table import StudyRow, write_table

PRETRAINING = """
epochs = 2
device = "cpu"
batching.series = 2
[predictor]
dim = 32
depth = 1
num_heads = 2
dim_head = 16
[encoder]
which = "vit"
[encoder.params]
embed_dim = 48
depth = 1
num_heads = 3
token_dim = 1024
embed_layer_cf = { which = "voxel", params = {} }
pos_emb_cf = { which = "pe3d", params = { d = 30, d_size = 32, hw_size = 32 } }
"""
PROBES = "epochs = 2\nhidden = 8\nbatch = 4\n"


def run(*arguments: object) -> str:
    """Output of a command that must succeed."""
    made = CliRunner().invoke(app, [str(one) for one in arguments])
    assert made.exit_code == 0, made.output
    return made.output


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six CT studies of six patients, every second one with a bright ball."""
    rows = []
    for number in range(6):
        field = dicom.ball((20, 0, 0), 25, 75) if number % 2 else dicom.head
        series = dicom.ct_series(n=12, patient=str(number), pixels=field)
        dicom.study_dir(tmp_path / f"s{number}", series)
        split = "validation" if number >= 4 else "train"
        rows.append(
            StudyRow(
                str(series[0].StudyInstanceUID),
                tmp_path / f"s{number}",
                f"p{number}",
                "CT",
                split=split,
                labels={"intraparenchymal_hemorrhage": number % 2},
            )
        )
    write_table(tmp_path / "studies.csv", rows)
    return tmp_path / "studies.csv"


def test_a_table_of_studies_becomes_a_pack(table: Path, tmp_path: Path) -> None:
    """Cache, pretraining, probes, evaluation; each says what it made."""
    (tmp_path / "run.toml").write_text(PRETRAINING)
    (tmp_path / "probes.toml").write_text(PROBES)
    cache, out, pack = tmp_path / "cache", tmp_path / "run", tmp_path / "pack"

    assert "6 studies stored, 0 were there, 0 refused" in run("train", "cache", table, cache)
    assert "0 studies stored, 6 were there" in run("train", "cache", table, cache)
    said = run("train", "voljepa", table, cache, out, "--run-config", tmp_path / "run.toml")
    assert "encoder written" in said
    run("train", "probes", table, cache, out / "encoder", pack, "--name", "mine",
        "--run-config", tmp_path / "probes.toml")  # fmt: skip
    packs.verify(pack)
    (label,) = packs.load_manifest(pack).heads[0].labels
    assert (label.id, label.acuity.value) == ("intraparenchymal_hemorrhage", "urgent")

    pytest.importorskip("matplotlib")
    said = run("evaluate", pack, table, tmp_path / "report", "--split", "validation",
               "--device", "cpu")  # fmt: skip
    assert "2 studies" in said
    numbers = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert numbers["labels"][0]["positives"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "cache", "missing.csv", "c"], "no such table"),
        (["train", "voljepa", "{table}", "nowhere", "out"], "no token cache"),
        (["evaluate", "{here}", "{table}", "out", "--split", "test"], "no study"),
    ],
)
def test_what_is_missing_is_said(
    arguments: list[str], said: str, table: Path, tmp_path: Path
) -> None:
    """One line, exit status above zero, no traceback."""
    filled = [one.format(table=table, here=tmp_path) for one in arguments]
    made = CliRunner().invoke(app, filled)

    assert made.exit_code in (1, 2)
    assert said in made.output
    assert "Traceback" not in made.output

"""`packs import prima` makes a pack of the published file, and says what is doubtful."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest
from factories import prima
from typer.testing import CliRunner

from agent import cli


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments that name small published files."""
    folder = tmp_path_factory.mktemp("official")
    model = prima.save(prima.full_model(prima.hiervit()), folder / "primafullmodel107.pt")
    day = dt.datetime(2025, 6, 1, tzinfo=dt.UTC).timestamp()
    os.utime(model, (day, day))
    weights, config = prima.tokenizer_files(folder)
    return [str(model), "--tokenizer", str(weights), "--tokenizer-config", str(config)]


def test_the_published_file_becomes_a_pack(official: list[str], tmp_path: Path):
    """Counts, licence and the doubt about an old priority head are said; the pack verifies."""
    out = str(tmp_path / "pack")
    arguments = ["packs", "import", "prima", *official, "-o", out, "--name", "prima"]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert "2 diagnoses outputs, 1 referral outputs, 4 priority outputs" in done.output
    assert "Research use only" in done.output
    assert "corrected the priority head" in done.output
    again = CliRunner().invoke(cli.app, arguments)
    assert again.exit_code != 0
    assert "exists already" in again.output


def test_a_forged_file_is_refused_by_name(official: list[str], tmp_path: Path):
    """The command ends with the reason and leaves no pack."""
    forged = tmp_path / "evil.pt"
    forged.write_bytes(b"cposix\nsystem\n.")
    arguments = [str(forged), *official[1:], "-o", str(tmp_path / "pack"), "--name", "x"]
    done = CliRunner().invoke(cli.app, ["packs", "import", "prima", *arguments])
    assert done.exit_code != 0
    assert "evil.pt" in done.output
    assert not (tmp_path / "pack").exists()


def test_parts_are_all_needed(official: list[str], tmp_path: Path):
    """A priority head alone does not make a model in parts."""
    arguments = [*official, "-o", str(tmp_path / "p"), "--name", "x", "--priority", official[0]]
    done = CliRunner().invoke(cli.app, ["packs", "import", "prima", *arguments])
    assert done.exit_code != 0
    assert "--diagnosis-heads" in done.output

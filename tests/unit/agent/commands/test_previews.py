"""`worklist-agent deliveries preview`: the dry run of every destination that is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import rows
from typer.testing import CliRunner

from agent import database
from agent.cli import app
from db import engine as db_engine

CONFIG = """
[storage]
data_dir = "var"
[[destinations]]
name = "archive"
kind = "dicom"
ae_title = "PACS"
[[destinations]]
name = "ris"
kind = "ups"
ae_title = "RIS"
port = 1
[[destinations]]
name = "manager"
kind = "ups-rs"
url = "http://127.0.0.1:1/rs"
[[destinations]]
name = "hook"
kind = "webhook"
url = "http://127.0.0.1:1/hook"
webhook = { secret_file = "hook.key" }
[[destinations]]
name = "ehr"
kind = "fhir"
url = "http://127.0.0.1:1/fhir"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configured agent with an analysed study; none of its destinations is there."""
    folder = tmp_path_factory.mktemp("site")
    path = folder / "config.toml"
    path.write_text(CONFIG)
    (folder / "var").mkdir()
    engine = db_engine.create_engine(f"sqlite:///{folder / 'var' / 'worklist-agent.db'}")
    database.upgrade(engine)
    with db_engine.session_factory(engine).begin() as session:
        rows.analysis(session, rows.study(session, number=7, priority="STAT"))
    engine.dispose()
    return path


def run(site: Path, *words: str) -> tuple[int, str]:
    """Exit code and what was said."""
    command = ["deliveries", "preview", *words, "--config", str(site)]
    result = CliRunner().invoke(app, command)
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("destination", "said"),
    [
        ("ris", "ScheduledProcedureStepPriority: HIGH"),
        ("manager", "CommentsOnTheScheduledProcedureStep: STAT"),
        ("hook", '"level": "STAT"'),
        ("ehr", '"priority": "stat"'),
    ],
)
def test_preview_shows_what_each_destination_would_be_told(
    site: Path, destination: str, said: str
) -> None:
    """Nothing is sent: nobody is there."""
    code, output = run(site, "1", "--destination", destination)
    assert code == 0, output
    assert said in output


def test_what_cannot_be_previewed_is_wrong_usage(site: Path) -> None:
    """Objects are files; unknown names and kinds are named."""
    for words in (("--destination", "archive"), ("--destination", "ris", "--kind", "rumor")):
        assert run(site, "1", *words)[0] == 2
    assert run(site, "99", "--destination", "ris")[0] == 1

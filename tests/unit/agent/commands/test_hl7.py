"""`worklist-agent hl7`: previews send nothing, listings show nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import hl7 as make
from factories import rows
from typer.testing import CliRunner

from agent import database
from agent.cli import app
from agent.orders.prioritizing import Policy
from agent.orders.room import OrdersRoom
from agent.settings import PrioritySettings
from agent.settings_hl7 import Hl7Settings
from db import engine as db_engine

CONFIG = """
[storage]
data_dir = "var"
[[destinations]]
name = "engine"
kind = "hl7"
port = 1
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A configured agent with an analysed study and a message that could not be used."""
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    (tmp_path / "var").mkdir()
    engine = db_engine.create_engine(f"sqlite:///{tmp_path / 'var' / 'worklist-agent.db'}")
    database.upgrade(engine)
    sessions = db_engine.session_factory(engine)
    with sessions.begin() as session:
        rows.analysis(session, rows.study(session, number=7, priority="STAT"))
    room = OrdersRoom(sessions, Hl7Settings(), Policy(PrioritySettings()), lambda: rows.NOW)
    room.handle(make.order(""), "10.0.0.1")
    engine.dispose()
    return path


def run(site: Path, *words: str) -> tuple[int, str]:
    """Exit code and what was said."""
    result = CliRunner().invoke(app, ["hl7", *words, "--config", str(site)])
    return result.exit_code, result.output


def test_preview_prints_the_message(site: Path) -> None:
    """Of either kind; an unknown destination is wrong usage."""
    code, said = run(site, "preview", "1", "--destination", "engine", "--kind", "priority")
    assert (code, said.splitlines()[0][:4]) == (0, "MSH|")
    assert "PAT0007" in said

    assert run(site, "preview", "1", "--destination", "nobody")[0] == 2
    assert run(site, "preview", "99", "--destination", "engine")[0] == 1


def test_messages_are_listed_without_content_and_put_back(site: Path) -> None:
    """Content only when asked for."""
    code, listed = run(site, "messages", "--state", "quarantined", "--json")
    assert code == 0
    assert '"answer": "AE"' in listed
    assert "PAT1" not in listed

    assert "PAT1" in run(site, "messages", "--content", "1")[1]
    assert "1 messages" in run(site, "requeue", "--quarantined")[1]
    assert run(site, "requeue", "1")[0] == 1

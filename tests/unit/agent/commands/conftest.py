"""A command line over a small installation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result
from factories import agent_process, model_packs, peers, rows
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from agent import cli, database
from agent.config import Config
from agent.config import load as load_config
from db import engine as engines


@dataclass(frozen=True)
class Installation:
    """A configuration file, and a database if `migrate` was called."""

    config_file: Path
    config: Config

    def run(self, *arguments: str) -> Result:
        """`worklist-agent ARGUMENTS -c FILE`."""
        return run(*arguments, "-c", str(self.config_file))

    def migrate(self) -> sessionmaker[Session]:
        """Make the database."""
        self.config.storage.data_dir.mkdir(parents=True, exist_ok=True)
        engine = engines.create_engine(self.config.database_url)
        database.upgrade(engine)
        return engines.session_factory(engine)


def run(*arguments: str) -> Result:
    """`worklist-agent ARGUMENTS`."""
    return CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No config.toml of the working directory and no variable of the environment is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORKLIST_AGENT_CONFIG", raising=False)


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack whose answer is known."""
    return model_packs.bright_pack(tmp_path_factory.mktemp("pack") / "bright")


@pytest.fixture
def make_installation(tmp_path: Path, pack: Path) -> Callable[..., Installation]:
    """Makes installations; sections replace the defaults of `agent_process.configuration`."""

    def make(**sections: Any) -> Installation:
        destination = agent_process.dicom("pacs", peers.free_port())
        settings = agent_process.configuration(tmp_path, pack, [destination]) | sections
        file = tmp_path / "agent.toml"
        file.write_text(agent_process.to_toml(settings))
        return Installation(file, load_config(file))

    return make


@pytest.fixture
def installation(make_installation: Callable[..., Installation]) -> Installation:
    """One with a pack and a destination that is down."""
    return make_installation()


@pytest.fixture
def ward(installation: Installation) -> Installation:
    """With a done study (1), a failed one (2) and a dead letter of it."""
    sessions = installation.migrate()
    with sessions.begin() as session:
        done = rows.study(session, number=1, priority="STAT")
        series = rows.series(session, done)
        rows.instance(session, series)
        analysis = rows.analysis(session, done)
        rows.delivery(session, rows.result(session, analysis))
        rows.event(session, done)
        failed = rows.study(
            session, number=2, state="failed", reason="1 of 1 deliveries are dead", modalities="MR"
        )
        result = rows.result(session, rows.analysis(session, failed))
        rows.delivery(session, result, state="dead", last_error="refused", attempts=4)
    bind = sessions.kw["bind"]
    assert isinstance(bind, sa.Engine)
    bind.dispose()
    return installation

"""What every test may use: golden data, the peers it needs, and a quiet log."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import postgres
from sqlalchemy.orm import Session, sessionmaker

from agent import database
from db import engine

REQUIRE_PEERS = os.environ.get("WORKLIST_TESTS_REQUIRE_PEERS") == "1"
PEER_PROGRAMS = {
    "peers": ("Orthanc", "storescu", "findscu", "dsrdump", "psql"),
    "browser": ("chromium", "chromedriver"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests whose programs are missing, with the reason; fail where peers are required."""
    for marker, programs in PEER_PROGRAMS.items():
        missing = [p for p in programs if shutil.which(p) is None]
        if not missing:
            continue
        if REQUIRE_PEERS:
            raise pytest.UsageError(f"required peers are missing: {', '.join(missing)}")
        skip = pytest.mark.skip(reason=f"not installed: {', '.join(missing)}")
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[postgres.Cluster]:
    """One throw-away PostgreSQL server for the whole run."""
    with postgres.running() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peers)])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sessionmaker[Session]]:
    """An empty, migrated database: the same tests run on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'record.db'}"
    else:
        url = request.getfixturevalue("postgres_cluster").database()
    bind = engine.create_engine(url)
    database.upgrade(bind)
    yield engine.session_factory(bind)
    bind.dispose()

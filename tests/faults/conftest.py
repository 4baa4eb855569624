"""A small hospital for tests that break the agent: a PACS, a pack, scanners that do not give up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import model_packs

from agent.demo.pacs import EmbeddedPacs


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack that calls bright tissue, and grounds it."""
    return model_packs.bright_pack(tmp_path_factory.mktemp("pack") / "bright")


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[EmbeddedPacs]:
    """The archive that results go to; it outlives the agent."""
    with EmbeddedPacs(tmp_path / "pacs") as archive:
        yield archive

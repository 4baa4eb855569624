"""Every case composed once: its objects as files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import result_cases

from agent.results.compose import compose_files

Made = dict[str, list[Path]]
"""Files by kind."""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Compose a case by name and give back its files by kind."""

    @functools.cache
    def compose(name: str) -> Made:
        folder = tmp_path_factory.mktemp(name)
        context = result_cases.CASES[name](folder / "source")
        files: Made = {}
        for one, path in compose_files(context, folder / "results"):
            files.setdefault(one.kind, []).append(path)
        return files

    return compose

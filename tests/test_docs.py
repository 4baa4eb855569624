"""The documentation is true: commands, keys and links are checked, not trusted."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from agent import settings
from agent.config import Config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def sections() -> Iterator[type[BaseModel]]:
    """Every section of the configuration."""
    for value in vars(settings).values():
        if isinstance(value, type) and issubclass(value, settings.Section):
            yield value


def test_every_key_stands_in_the_shipped_configuration() -> None:
    """A key that config.toml does not show or explain is a key nobody finds."""
    text = (ROOT / "config.toml").read_text()
    explained_elsewhere = {"Match", "Section"}
    missing = [
        f"{section.__name__}.{key}"
        for section in sections()
        if section.__name__ not in explained_elsewhere
        for key in section.model_fields
        if not re.search(rf"\b{key}\b", text)
    ]

    assert missing == []


def test_every_section_is_in_use() -> None:
    """The root configuration names every top-level section of the file."""
    text = (ROOT / "config.toml").read_text()

    missing = [name for name in Config.model_fields if not re.search(rf"\[\[?{name}\b", text)]

    assert missing == []


def test_the_command_reference_is_what_the_commands_say(tmp_path: Path) -> None:
    """docs/commands.md is generated; `make docs` writes it again."""
    fresh = tmp_path / "commands.md"
    command = [sys.executable, "-m", "typer", "agent.cli", "utils", "docs"]
    options = ["--name", "worklist-agent", "--title", "Commands", "--output", str(fresh)]
    subprocess.run([*command, *options], cwd=ROOT, check=True, capture_output=True)

    assert (ROOT / "docs" / "commands.md").read_text() == fresh.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that is there."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())

    missing = [target for target in targets if not (page.parent / target).exists()]

    assert missing == []

"""The [report] section of a pack.toml."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from inference.errors import PackError
from inference.manifest import ModelFiles
from inference.report.pack_section import ReportSection, Transport, read, write
from inference.toml_tables import Table

SECTION = ReportSection(
    connector=ModelFiles("connector/config.json", "connector/model.safetensors"),
    language_model="language_model",
    prompt="prompt.json",
    transport=Transport.CHAT,
    empty_assistant_turn=True,
    rounded_buffers=True,
)


def table(section: ReportSection = SECTION, **changes: Any) -> Table:
    """The section as a table, with keys changed; None takes a key out."""
    data = {**tomllib.loads("\n".join(write(section)))["report"], **changes}
    return Table({k: v for k, v in data.items() if v is not None}, "pack.toml", "report.")


def test_what_is_written_is_read_back() -> None:
    """Every option, and the files that the manifest must hash."""
    assert read(table()) == SECTION
    assert read(table(transport=None, rounded_buffers=None)).transport is Transport.PROMPT_EMBEDS
    assert set(SECTION.files) >= {"prompt.json", "language_model/tokenizer.json"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prompt": None}, "prompt"),
        ({"language_model": "../elsewhere"}, "language_model"),
        ({"transport": "pigeon"}, "transport"),
        ({"rounded_buffers": "yes"}, "rounded_buffers"),
        ({"beams": 4}, "beams"),
        ({"connector": {"config": "c.json"}}, r"connector\.weights"),
        ({"connector": {"config": "c", "weights": "w", "kind": "x"}}, r"connector\.kind"),
    ],
)
def test_a_key_that_is_wrong_is_named(changes: dict[str, Any], named: str) -> None:
    """Missing, unknown, outside the pack or of another type."""
    with pytest.raises(PackError, match=named):
        read(table(**changes))

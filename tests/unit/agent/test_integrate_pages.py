"""The pages on channels out are true: their configurations load, their code runs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from factories import hl7

from agent.config import Config
from agent.delivery import registry
from agent.delivery.announcements import Kind
from agent.delivery.channels import webhook

PAGES = ("ups", "webhook", "fhir")


def blocks(repository: Path, page: str, language: str) -> list[str]:
    """Fenced blocks of a page."""
    text = (repository / "docs" / "integrate" / f"{page}.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_every_configuration_loads_and_its_destinations_can_be_previewed(
    repository: Path, page: str
) -> None:
    """As it stands on the page."""
    found = blocks(repository, page, "toml")
    assert found
    for block in found:
        config = Config(**tomllib.loads(block))
        for destination in config.destinations:
            channel = registry.message_channel(destination)
            for kind in Kind:
                assert "2.25." in channel.preview(hl7.announcement(kind)) or page == "webhook"


def test_the_receiver_on_the_page_accepts_what_we_sign_and_nothing_else(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snippet is what an integrator copies."""
    (snippet,) = blocks(repository, "webhook", "python")
    names: dict[str, Any] = {}
    exec(snippet, names)
    monkeypatch.setattr(names["time"], "time", lambda: 1_800_000_100.0)
    body = b'{"event": "priority"}'
    signed = webhook.sign("key", "1800000000", body)

    assert names["is_genuine"]("key", "1800000000", body, signed)
    assert not names["is_genuine"]("key", "1800000000", body + b" ", signed)
    assert not names["is_genuine"]("other", "1800000000", body, signed)
    old = webhook.sign("key", "1799990000", body)
    assert not names["is_genuine"]("key", "1799990000", body, old)

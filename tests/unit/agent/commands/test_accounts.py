"""Accounts and tokens by command: made, listed without secrets, closed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent import database
from agent.cli import app
from db import engine


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(
        '[storage]\ndata_dir = "."\n[web.passwords]\ntime_cost = 1\nmemory_kib = 8\n'
        "parallelism = 1\n"
    )
    database.upgrade(engine.create_engine(f"sqlite:///{tmp_path / 'worklist-agent.db'}"))


def _run(*words: str, typed: str | None = None) -> tuple[int, str]:
    answer = CliRunner().invoke(app, ["accounts", *words], input=typed)
    return answer.exit_code, answer.output


def test_an_account_is_made_changed_and_closed():
    """The password is asked twice and never shown."""
    typed = "a long password\na long password\n"
    assert _run("add", "doe", "--role", "radiologist", typed=typed)[0] == 0
    assert _run("add", "DOE", "--role", "viewer", typed=typed)[0] == 1
    assert _run("password", "doe", typed="another password\nanother password\n")[0] == 0
    assert _run("disable", "doe") == (0, "doe is disabled\n")
    code, listed = _run("list", "--json")

    assert code == 0
    (row,) = json.loads(listed)
    assert (row["name"], row["role"], row["state"]) == ("doe", "radiologist", "disabled")
    assert "argon2" not in listed


@pytest.mark.parametrize(
    ("words", "typed", "code"),
    [
        (("add", "doe", "--role", "king"), None, 2),
        (("add", "doe", "--role", "service"), "a long password\n" * 2, 1),
        (("add", "doe", "--role", "viewer"), "short\nshort\n", 1),
        (("add", "a b", "--role", "viewer"), "a long password\n" * 2, 1),
        (("password", "nobody"), "a long password\n" * 2, 1),
        (("disable", "nobody"), None, 1),
        (("token", "bot", "--days", "0"), None, 1),
    ],
)
def test_what_cannot_be_is_refused(words: tuple[str, ...], typed: str | None, code: int):
    """With the documented status."""
    assert _run(*words, typed=typed)[0] == code


def test_a_token_is_told_once():
    """The listing knows its name, role and end only; issued again, the old one is gone."""
    code, first = _run("token", "bot", "--days", "30")
    _, second = _run("token", "bot")
    _, listed = _run("list", "--json")

    assert code == 0
    assert first.startswith("wla_")
    assert first != second
    assert [row["name"] for row in json.loads(listed)] == ["bot"]
    assert first.strip() not in listed

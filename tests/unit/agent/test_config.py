"""The configuration: the shipped file, overrides, and refusals that name the fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import config
from agent.errors import ConfigError


def refusal(data: dict[str, object]) -> str:
    """The text with which `data` is refused."""
    with pytest.raises(ConfigError) as caught:
        config.from_mapping(data, source="site.toml")
    return str(caught.value)


def test_the_shipped_file_is_accepted_and_starts_in_shadow_mode(repository: Path) -> None:
    """A fresh production configuration pushes nothing."""
    loaded = config.load(repository / "config.toml")

    assert [p.shadow for p in loaded.packs.values()] == [True]
    assert loaded.web.host == loaded.dicom.host == "127.0.0.1"


def test_the_shipped_file_states_the_built_in_defaults(repository: Path) -> None:
    """What the comments show is what holds without a file (routing, packs and site rules apart)."""
    shipped = config.load(repository / "config.toml")
    built_in = config.from_mapping({}, source="defaults")

    for section in ("dicom", "web", "inference", "results", "delivery", "log", "schedule"):
        assert getattr(shipped, section) == getattr(built_in, section), section


def test_an_unknown_key_is_refused_with_the_allowed_ones() -> None:
    """A misspelt key names itself, its neighbor and what is allowed."""
    text = refusal({"dicom": {"prot": 104}})

    assert "site.toml" in text
    assert "dicom.prot" in text
    assert "did you mean port?" in text
    assert "max_pdu" in text


def test_a_bad_value_is_refused_with_key_and_value() -> None:
    """A value out of range names the key, the rule and what was given."""
    text = refusal({"dicom": {"port": 70000}})

    assert "dicom.port" in text
    assert "65535" in text
    assert "70000" in text


def test_a_secret_in_the_file_is_refused_without_repeating_it() -> None:
    """Passwords belong in files; the refusal does not print what was typed."""
    text = refusal(
        {"destinations": [{"name": "a", "kind": "dicomweb", "url": "u", "password": "hunter2"}]}
    )

    assert "password_file" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"routing": {"rules": [{"name": "r", "pack": "nope"}]}}, "'nope'"),
        ({"routing": {"rules": [{"name": "r"}]}}, "either a pack or a skip"),
        ({"routing": {"rules": [{"name": "r", "skip": "s", "when": {"text": "("}}]}}, "regular"),
        ({"assembly": {"count_from": "pacs"}}, "count_from"),
        ({"destinations": [{"name": "a", "kind": "dicom"}]}, "ae_title"),
        ({"dicom": {"ae_title": "A" * 17}}, "16"),
        ({"dicom": {"tls": {"key": "k"}}}, "belong together"),
        ({"priority": {"target_minutes": {"STAT": 1}}}, "lacks HIGH"),
        ({"dicom": {"allowed_networks": ["10.0.0.0/99"]}}, "10.0.0.0/99"),
    ],
)
def test_what_cannot_work_is_refused(data: dict[str, object], words: str) -> None:
    """Every rule between keys has its own clear refusal."""
    assert words in refusal(data)


def test_the_environment_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    """Scalars as text, tables as JSON."""
    monkeypatch.setenv("WORKLIST_AGENT_DICOM__PORT", "4242")
    monkeypatch.setenv("WORKLIST_AGENT_ASSEMBLY__QUIET_S_BY_MODALITY", '{"CT": 5}')

    loaded = config.load(repository / "config.toml")

    assert loaded.dicom.port == 4242
    assert loaded.dicom.ae_title == "WLAGENT"
    assert loaded.assembly.quiet_s_by_modality["CT"] == 5


@pytest.mark.parametrize("name", ["WORKLIST_AGENT_DICOMM__PORT", "WORKLIST_AGENT_DICOM__PROT"])
def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A misspelt variable does not silently do nothing."""
    monkeypatch.setenv(name, "1")

    with pytest.raises(ConfigError, match=r"(?i)prot|dicomm"):
        config.load(None)


def test_relative_paths_are_resolved_against_the_file(tmp_path: Path) -> None:
    """The agent may be started from any directory."""
    file = tmp_path / "site.toml"
    file.write_text('[storage]\ndata_dir = "data"\n[packs.p]\npath = "packs/p"\n')

    loaded = config.load(file)

    assert loaded.storage.data_dir == tmp_path / "data"
    assert loaded.packs["p"].path == tmp_path / "packs" / "p"

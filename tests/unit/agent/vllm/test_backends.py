"""From the configuration to whoever drafts and judges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import language_models
from safetensors.torch import save_file

from agent import config as agent_config
from agent.config import Config
from agent.drafting import backends
from agent.errors import ConfigError
from inference import packs
from inference.report.draft import ClinicalContext
from inference.report.house import LeavesTheHouse
from inference.report.tokens import VisualTokens
from inference.report.vllm.drafter import VllmDrafter
from inference.report.vllm.errors import UnsafeEmbeddings


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """As much of a language model as a client needs that lets the server write the prompt."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 256}))
    (folder / "tokenizer.json").write_text("{}")
    table = torch.full((8, 16), 0.25)
    save_file({"model.embed_tokens.weight": table}, folder / "model.safetensors")
    return folder


def _read(file: Path, **changes: Any) -> Config:
    read = agent_config.load(file)
    return read.model_copy(update={"report": read.report.model_copy(update=changes)})


def _manifests(config: Config) -> dict[str, packs.Manifest]:
    return {name: packs.load_manifest(pack.path) for name, pack in config.packs.items()}


@pytest.fixture
def file(tmp_path: Path, model: Path) -> Path:
    """A configuration that drafts by vLLM, over chat."""
    made = language_models.configured(tmp_path, model, "http://127.0.0.1:9", "tiny", "key")
    pack = tmp_path / "pack"
    text = (pack / "pack.toml").read_text()
    (pack / "pack.toml").write_text(text.replace('"prompt_embeds"', '"chat"'))
    return made


def test_vllm_is_asked_for_the_configured_pack(file: Path) -> None:
    """Its limits follow from the language model: width, room for the answer, usual length."""
    config = _read(file)
    drafter = backends.drafter(config, _manifests(config))
    assert isinstance(drafter, VllmDrafter)
    limits = drafter._recipe.limits
    drafter.close()

    assert (limits.width, limits.max_rows, limits.max_norm) == (16, 56, pytest.approx(1000.0))
    loud = VisualTokens(("1.2",), np.full((1, 4, 16), 400.0, np.float32))
    with pytest.raises(UnsafeEmbeddings):
        drafter.draft(loud, ClinicalContext("CT"), 0)


@pytest.mark.parametrize("changes", [{"enabled": False}, {"backend": "template"}])
def test_nobody_drafts_where_templates_do(file: Path, changes: dict[str, Any]) -> None:
    """The caller words the findings itself."""
    config = _read(file, **changes)

    assert backends.drafter(config, _manifests(config)) is None


def test_a_pack_without_language_model_cannot_draft(file: Path, tmp_path: Path) -> None:
    """Said at the start, not at the first study."""
    config = _read(file)
    import dataclasses

    manifests = {k: dataclasses.replace(v, report=None) for k, v in _manifests(config).items()}
    with pytest.raises(ConfigError, match="cannot draft"):
        backends.drafter(config, manifests)


def test_a_missing_key_is_told(file: Path, tmp_path: Path) -> None:
    """With the file's name, never its content."""
    (tmp_path / "key").write_text(" \n")
    config = _read(file)
    with pytest.raises(ConfigError, match="is empty"):
        backends.drafter(config, _manifests(config))


def _triage(**keys: Any) -> Config:
    section = {"enabled": True, "model": "m", **keys}
    return agent_config.from_mapping({"triage": section}, source="test")


def test_triage_is_asked_in_the_house_only() -> None:
    """An address outside is refused at the start; two keys permit it."""
    outside = "https://203.0.113.5"
    with pytest.raises(LeavesTheHouse):
        backends.reasoner(_triage(endpoint=outside))
    permitted = _triage(endpoint=outside, off_site_host="203.0.113.5", data_may_leave=True)
    for config in (permitted, _triage(endpoint="http://127.0.0.1:9/v1/")):
        made = backends.reasoner(config)
        assert made is not None
        made.close()
    assert backends.reasoner(_triage(enabled=False)) is None


@pytest.mark.parametrize(
    "keys",
    [
        {"model": ""},
        {"data_may_leave": True},
        {"off_site_host": "llm.example"},
        {"endpoint": "llm.example"},
        {"endpoint": "http://user:password@llm.example"},
    ],
)
def test_half_a_permission_is_none(keys: dict[str, Any]) -> None:
    """One key alone is a mistake, and is told."""
    with pytest.raises(ConfigError):
        _triage(**keys)

"""Small models for the tests of NeuroVFM."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from factories.neurovfm import ENCODER, HEAD

from inference.neurovfm.heads import build_head
from inference.neurovfm.model import VisionTransformer, build_encoder


@pytest.fixture
def encoder() -> VisionTransformer:
    """A seeded encoder of two small blocks."""
    torch.manual_seed(0)
    return build_encoder(ENCODER).eval()


@pytest.fixture
def official(tmp_path: Path) -> Callable[..., Path]:
    """Writes an official model directory: config.json and pytorch_model.bin."""

    def write(name: str, config: dict[str, Any], state: dict[str, Any]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        torch.save(state, folder / "pytorch_model.bin")
        return folder

    return write


@pytest.fixture
def head_folder(official: Callable[..., Path]) -> Path:
    """A small head with three outputs on disk."""
    torch.manual_seed(1)
    return official("head", HEAD, build_head(HEAD, 48).state_dict())

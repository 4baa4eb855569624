"""Turning an official download into a pack."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from factories.neurovfm import ENCODER, HEAD
from safetensors.torch import load_file

from inference import packs
from inference.errors import PackError
from inference.neurovfm import weights
from inference.neurovfm.heads import build_head
from inference.neurovfm.model import VisionTransformer
from inference.neurovfm.official import LICENCE, Identity, import_official

IDENTITY = Identity("official", "1.2.0", created=dt.date(2026, 1, 2))
Official = Callable[..., Path]


def encoder_folder(official: Official, encoder: VisionTransformer, **extra: torch.Tensor) -> Path:
    """An official encoder directory."""
    return official("encoder", ENCODER, {**encoder.state_dict(), **extra})


def test_an_import_loads_the_same_weights_again(
    official: Official, encoder: VisionTransformer, head_folder: Path, tmp_path: Path
):
    """What the pack loads equals what the official files load, and every file is hashed."""
    source = encoder_folder(official, encoder)
    manifest = import_official(source, {"CT": head_folder}, tmp_path / "pack", IDENTITY)

    packs.verify(tmp_path / "pack")
    assert (manifest.licence, manifest.research_only) == (LICENCE, True)
    assert "Research use only" in manifest.notice
    before = weights.load_encoder_files(source / "config.json", weights.weights_file(source))
    files = manifest.encoder
    after = weights.load_encoder_files(
        tmp_path / "pack" / files.config, tmp_path / "pack" / files.weights
    )
    for key, value in before.model.state_dict().items():
        assert torch.equal(value, after.model.state_dict()[key]), key
    stored = load_file(tmp_path / "pack" / files.weights)
    assert stored["blocks.0.mixer.qkv.weight"].dtype == torch.bfloat16


def test_statistics_of_a_checkpoint_travel_into_the_pack(
    official: Official, encoder: VisionTransformer, head_folder: Path, tmp_path: Path
):
    """A pack normalises as the checkpoint it was made from."""
    checkpoint = {f"model.student.vision_encoder.{k}": v for k, v in encoder.state_dict().items()}
    checkpoint["normalization_module.means"] = torch.tensor([0.5, 0.4, 0.3, 0.2])
    checkpoint["normalization_module.stds"] = torch.tensor([1.0, 2.0, 4.0, 8.0])
    source = official("lightning", ENCODER, {"state_dict": checkpoint})
    manifest = import_official(source, {"MR": head_folder}, tmp_path / "pack", IDENTITY)
    loaded = weights.load_encoder_files(
        tmp_path / "pack" / manifest.encoder.config, tmp_path / "pack" / manifest.encoder.weights
    )
    assert loaded.stats[0] == pytest.approx([0.5, 0.4, 0.3, 0.2])
    assert loaded.stats[1] == pytest.approx([1.0, 2.0, 4.0, 8.0])


def test_a_published_head_gets_its_published_labels(
    official: Official, encoder: VisionTransformer, tmp_path: Path
):
    """82 outputs are the CT labels, with acuity and code; other numbers are only numbered."""
    config = {**HEAD, "params": {**HEAD["params"], "W_out": 82}}
    head = official("ct", config, build_head(config, 48).state_dict())
    source = encoder_folder(official, encoder)
    manifest = import_official(source, {"CT": head}, tmp_path / "pack", IDENTITY)
    named = manifest.head_for("CT")
    assert named is not None
    assert len(named.labels) == 82
    bleed = next(label for label in named.labels if label.id == "intracranial_hemorrhage")
    assert (bleed.code.scheme, bleed.code.value, bleed.acuity) == ("SCT", "1386000", "urgent")


def test_a_failed_import_leaves_nothing_behind(
    official: Official, encoder: VisionTransformer, head_folder: Path, tmp_path: Path
):
    """No half pack, and no existing folder is touched."""
    source = encoder_folder(official, encoder)
    (head_folder / "pytorch_model.bin").write_bytes(b"broken")
    with pytest.raises(PackError):
        import_official(source, {"CT": head_folder}, tmp_path / "pack", IDENTITY)
    assert not (tmp_path / "pack").exists()
    assert not list(tmp_path.glob(".pack*"))

    (tmp_path / "pack").mkdir()
    with pytest.raises(PackError, match="exists already"):
        import_official(source, {"CT": head_folder}, tmp_path / "pack", IDENTITY)

"""Loading weights: strictly, safely, from every official layout."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from factories.neurovfm import ENCODER
from safetensors.torch import save_file

from inference.checkpoints import read_state_dict, sha256_of
from inference.errors import ConfigError, NotAvailableError, WeightsError
from inference.neurovfm import load_encoder, weights
from inference.neurovfm.model import VisionTransformer

State = dict[str, torch.Tensor]
Official = Callable[..., Path]


def load(folder: Path) -> weights.LoadedEncoder:
    """Load an encoder directory."""
    return weights.load_encoder_files(folder / "config.json", weights.weights_file(folder))


def test_all_official_layouts_load_the_same_encoder(official: Official, encoder: VisionTransformer):
    """Bare, inside state_dict, prefixed, Lightning with other modules beside, safetensors."""
    state = encoder.state_dict()
    student = {f"model.student.vision_encoder.{k}": v for k, v in state.items()}
    beside = {
        "model.teacher.vision_encoder.norm.weight": torch.zeros(48),
        "model.predictor.norm.weight": torch.zeros(48),
        "normalization_module.means": torch.tensor([0.1, 0.2, 0.3, 0.4]),
        "normalization_module.stds": torch.tensor([1.0, 2.0, 3.0, 4.0]),
    }
    layouts: dict[str, Any] = {
        "bare": state,
        "wrapped": {"state_dict": state},
        "vlm": {"state_dict": {f"encoder.{k}": v for k, v in state.items()}},
        "lightning": {"state_dict": {**student, **beside}, "epoch": 3},
    }
    folders = [official(name, ENCODER, held) for name, held in layouts.items()]
    safe = official("safe", ENCODER, {})
    (safe / "pytorch_model.bin").unlink()
    save_file(state, safe / "model.safetensors")

    expected = weights.round_attention(state)
    for folder in (*folders, safe):
        loaded = load(folder)
        for key, value in loaded.model.state_dict().items():
            assert torch.equal(value, expected[key]), (folder.name, key)
    lightning = load(folders[-1])
    others = {key for key in beside if not key.startswith("normalization_module.")}
    assert set(lightning.provenance.dropped) == others
    assert lightning.stats[0] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_attention_weights_are_rounded_to_bfloat16_on_loading(
    official: Official, encoder: VisionTransformer
):
    """A file in float32 gives the numbers of the reference, which holds them in half precision."""
    model = load(official("full", ENCODER, encoder.state_dict())).model
    for name, value in model.state_dict().items():
        rounded = torch.equal(value, value.bfloat16().float())
        assert rounded or ".mixer." not in name, name
    assert not torch.equal(
        model.state_dict()["token_embed.proj.weight"],
        encoder.state_dict()["token_embed.proj.weight"].bfloat16().float(),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("norm.bias"), r"missing norm\.bias"),
        (lambda s: s.update({"head.weight": torch.ones(1)}), r"unexpected head\.weight"),
        (
            lambda s: s.update({"norm.bias": torch.ones(47)}),
            r"mis-shaped norm\.bias is \[47\], not \[48\]",
        ),
        (
            lambda s: s.update({"norm.bias": torch.full((48,), float("nan"))}),
            r"norm\.bias hold NaN",
        ),
    ],
)
def test_a_key_that_does_not_fit_is_named(
    official: Official, encoder: VisionTransformer, change: Callable[[State], Any], message: str
):
    """Nothing is skipped in silence: missing, unexpected, mis-shaped, not a number."""
    state = dict(encoder.state_dict())
    change(state)
    with pytest.raises(WeightsError, match=message):
        load(official("broken", ENCODER, state))


def test_keys_of_an_unknown_module_beside_the_encoder_are_refused(
    official: Official, encoder: VisionTransformer
):
    """Only modules that are known to lie beside the encoder may be left out."""
    state = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    state["decoder.weight"] = torch.ones(1)
    with pytest.raises(WeightsError, match=r"unexpected keys decoder\.weight"):
        load(official("beside", ENCODER, state))


def test_an_unknown_prefix_is_told(official: Official, encoder: VisionTransformer):
    """The message says under which prefix the encoder lies in the file."""
    state = {f"net.backbone.{k}": v for k, v in encoder.state_dict().items()}
    with pytest.raises(WeightsError, match=r"net\.backbone\."):
        load(official("elsewhere", ENCODER, state))


class Dangerous:
    """A pickle that would run code when loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched-by-pickle"),))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Weights files are data: what a pickle asks to run does not run."""
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Dangerous()}, tmp_path / "evil.bin")
    with pytest.raises(WeightsError, match="more than tensors"):
        read_state_dict(tmp_path / "evil.bin")
    assert not (tmp_path / "touched-by-pickle").exists()


@pytest.mark.parametrize("content", [b"", b"not weights", b"broken", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("name", ["a.bin", "a.safetensors"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes):
    """Empty, foreign and truncated files give an error that names the file."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        read_state_dict(tmp_path / name)


def test_the_checksum_of_the_weights_is_recorded(official: Official, encoder: VisionTransformer):
    """Provenance carries the SHA-256 of the file that was loaded."""
    folder = official("known", ENCODER, encoder.state_dict())
    loaded = load(folder)
    assert loaded.provenance.sha256 == sha256_of(folder / "pytorch_model.bin")


def test_a_missing_or_foreign_config_is_refused(official: Official, encoder: VisionTransformer):
    """No configuration, no model."""
    folder = official("bare", ENCODER, encoder.state_dict())
    (folder / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json"):
        load(folder)


def test_a_hub_id_is_fetched_at_its_revision(
    official: Official, encoder: VisionTransformer, monkeypatch: pytest.MonkeyPatch
):
    """Only the files needed, at the pinned revision; the commit that came is on record."""
    folder = official("0123abc", ENCODER, encoder.state_dict())
    asked: dict[str, Any] = {}

    def snapshot_download(name: str, **options: Any) -> str:
        asked.update(name=name, **options)
        return str(folder)

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download)
    )
    pipeline, _ = load_encoder("owner/model", device="cpu", revision="abc")
    assert pipeline.provenance is not None
    assert (pipeline.provenance.source, pipeline.provenance.revision) == ("owner/model", "0123abc")
    assert asked["name"] == "owner/model"
    assert asked["revision"] == "abc"
    assert "config.json" in asked["allow_patterns"]


def test_without_the_hub_library_a_hub_id_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    """The library is optional; a directory always works."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(NotAvailableError, match=r"worklist-agent\[hub\]"):
        weights.locate("owner/model")
    with pytest.raises(WeightsError, match="no such model directory"):
        weights.locate("/nowhere/at/all/model")

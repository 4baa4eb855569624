"""A very small Prima: its networks, and the pickled module tree that the authors would publish."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inference.prima import texts, transformer
from inference.prima.hiervit import HierVit
from inference.prima.hiervit_sizes import HierVitSize
from inference.prima.texts import TextSize
from inference.prima.transformer import TransformerSize, VitSize
from inference.prima.vqvae import VQVAE
from inference.prima.vqvae_config import read_tokenizer_config

TOKENIZER = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 1,
    "num_res_layers": 1,
    "downsample_parameters": [[2, 4, 1, 1], [2, 2, 1, 0]],
    "upsample_parameters": [[2, 4, 1, 1, 0], [2, 2, 1, 0, 0]],
    "num_channels": [4, 4],
    "num_res_channels": [4, 4],
    "num_embeddings": 16,
    "embedding_dim": 2,
}
DIAGNOSES = {"infectious_brain_abscess": (1, -0.4), "something_new": (0, 0.3)}
REFERRALS = {"neurosurgery": (0, -0.6)}
PATHS = {
    "flat": {
        "FullMRIModel": "complete_visual_model",
        "CLIP": "model",
        "RachelDatasetPatchifier": "patchify",
    },
    "main": {
        "FullMRIModel": "__main__",
        "CLIP": "model",
        "RachelDatasetPatchifier": "patchify",
    },
}
"""Module of each class in two published layouts; what is not named lies in model_parts."""
NAMES = {
    HierVit: "HierViT",
    transformer.Vit: "ViT",
    transformer.Transformer: "Transformer",
    transformer.PreNorm: "PreNorm",
    transformer.Attention: "Attention",
    transformer.FeedForward: "FeedForward",
    texts.TextEncoder: "SerieTransformerEncoder",
}


def hiervit_size(*, width: int = 289, pretrained_names: bool = True) -> HierVitSize:
    """Sizes of a small study model; series vectors of 12 values, an embedding of 24."""

    def layers(dim: int) -> TransformerSize:
        return TransformerSize(dim, depth=1, heads=2, dim_head=4, mlp_dim=8)

    def text(outputs: int, after: int | None) -> TextSize:
        return TextSize(47, 14, layers(24), outputs, after)

    return HierVitSize(
        inner=VitSize(layers(width), registers=2, outputs=12),
        outer=VitSize(layers(12), registers=2, outputs=6),
        series_name=text(5, width) if pretrained_names else text(width, None),
        study_description=text(12, None),
        discriminator=(2 * width, 7, 5),
    )


def hiervit(seed: int = 3, **changes: Any) -> HierVit:
    """A study model with random weights."""
    torch.manual_seed(seed)
    return HierVit(hiervit_size(**changes)).eval().requires_grad_(False)


def head(seed: int, outputs: int = 3, hidden: tuple[int, int] = (6, 5)) -> nn.Sequential:
    """One diagnosis head."""
    torch.manual_seed(seed)
    first, second = hidden
    return nn.Sequential(
        nn.Linear(24, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(),
        nn.Linear(second, outputs),
    ).requires_grad_(False)  # fmt: skip


def full_model(visual: HierVit, *, levels: int = 4, layout: str = "flat") -> nn.Module:
    """The module tree that torch.save would be given, classes under their published names."""
    classes = _classes(layout)
    clip = classes["CLIP"]()
    patchifier = classes["RachelDatasetPatchifier"]()
    patchifier.d, patchifier.p_enc = 30, torch.zeros(8, 30)
    clip.visual_model, clip.patchifier = _renamed(visual, classes), patchifier
    clip.text_model = nn.Linear(2, 2)
    root = classes["FullMRIModel"]()
    root.clipmodel, root.clipvisualmodel = clip, clip.visual_model
    root.diagnosisheads = _heads(DIAGNOSES, 20)
    root.referralheads = _heads(REFERRALS, 40)
    root.priorityhead = head(60, levels)
    return root


def save(model: nn.Module, path: Path) -> Path:
    """`torch.save` of a model whose classes are in modules that exist only for the moment."""
    with _importable(model):
        torch.save(model, path)
    return path


def tokenizer_files(folder: Path) -> tuple[Path, Path]:
    """The small tokenizer's checkpoint and configuration."""
    torch.manual_seed(5)
    weights, config = folder / "vqvae.pth", folder / "tokenizer.json"
    torch.save(VQVAE(read_tokenizer_config(TOKENIZER)).state_dict(), weights)
    config.write_text(json.dumps({"vqvae_config": TOKENIZER}))
    return weights, config


def _heads(labels: Mapping[str, tuple[int, float]], seed: int) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for number, (name, (index, threshold)) in enumerate(labels.items()):
        network = head(seed + number, outputs=2 + number, hidden=(6 + number, 5))
        network.thresh = threshold  # type: ignore[assignment]
        found[name] = [network, index]
    return found


def _classes(layout: str) -> dict[str, Any]:
    modules = PATHS[layout]
    names = [*modules, *NAMES.values()]
    return {
        name: type(name, (nn.Module,), {"__module__": modules.get(name, "model_parts")})
        for name in names
    }


def _renamed(module: nn.Module, classes: Mapping[str, Any]) -> nn.Module:
    name = NAMES.get(type(module))
    if name is None and not list(module.children()):
        return module
    kind = classes[name] if name else nn.Sequential if "Encoder" in type(module).__name__ else None
    copy = kind() if kind else type(module)()
    copy.__dict__["_parameters"] = module.__dict__["_parameters"]
    for key, child in module.named_children():
        copy.add_module(key, _renamed(child, classes))
    if isinstance(module, transformer.Attention):
        copy.heads, copy.causal = module.heads, False
    return copy


@contextmanager
def _importable(model: nn.Module) -> Iterator[None]:
    """Pickle looks every class up; the modules are gone again afterwards."""
    kinds = {type(m) for m in model.modules() if not type(m).__module__.startswith("torch.")}
    before = {kind.__module__: sys.modules.get(kind.__module__) for kind in kinds}
    added = []
    try:
        for kind in kinds:
            if before[kind.__module__] is None:
                sys.modules.setdefault(kind.__module__, types.ModuleType(kind.__module__))
            setattr(sys.modules[kind.__module__], kind.__name__, kind)
            added.append((sys.modules[kind.__module__], kind.__name__))
        yield
    finally:
        for module, name in added:
            delattr(module, name)
        for name, known in before.items():
            if known is None:
                sys.modules.pop(name, None)

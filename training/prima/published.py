"""Writes checkpoints in the published layout: a pickled module tree under the authors' class names.

The tree holds tensors, the names of its classes and the numbers of attention heads, nothing else.
Class names are written straight into the pickle, so that no module of theirs need exist here.
"""

from __future__ import annotations

import copy
import pickle
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inference.prima import texts, transformer
from inference.prima.hiervit import HierVit

MODULES = {"CLIP": "model", "RachelDatasetPatchifier": "patchify"}
"""Modules of the published classes; those not named lie in model_parts."""
NAMES: Mapping[type[nn.Module], str] = {
    HierVit: "HierViT",
    transformer.Vit: "ViT",
    transformer.Transformer: "Transformer",
    transformer.PreNorm: "PreNorm",
    transformer.Attention: "Attention",
    transformer.FeedForward: "FeedForward",
    texts.TextEncoder: "SerieTransformerEncoder",
}


def save_clip(visual: HierVit, parameters: Mapping[str, Tensor], file: Path) -> None:
    """Write a CLIP checkpoint, whole or not at all; the text tower is left out.

    Args:
        visual: the study model.
        parameters: of the CLIP module itself, its temperatures.
        file: to write.
    """
    patchifier = _shell("RachelDatasetPatchifier")
    patchifier.__dict__["d"] = visual.size.position_channels
    clip = _shell("CLIP")
    for name, value in parameters.items():
        clip.register_parameter(name, nn.Parameter(value.clone()))
    clip.add_module("patchifier", patchifier)
    clip.add_module("visual_model", _renamed(visual))
    temporary = file.with_suffix(".tmp")
    writer = types.ModuleType("published_pickle")
    writer.__dict__["Pickler"] = _Pickler
    torch.save(clip, temporary, pickle_module=writer)
    temporary.replace(file)


class _Published(nn.Module):
    """Stands for a class of the authors."""

    published = ""


_Base: Any = vars(pickle)["_Pickler"]
"""Python's own pickler: the other one does not let its globals be named."""


class _Pickler(_Base):  # type: ignore[misc]  # without annotations
    """Writes the authors' class names for the stand-ins."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if isinstance(obj, type) and issubclass(obj, _Published):
            module = MODULES.get(obj.published, "model_parts")
            self.write(pickle.GLOBAL + f"{module}\n{obj.published}\n".encode())
            self.memoize(obj)
            return
        super().save_global(obj, name)

    # Classes come here by their type, not by `save_global` itself.
    dispatch = {**_Base.dispatch, type: save_global}  # noqa: RUF012 - as its base has it


def _shell(name: str) -> nn.Module:
    made: nn.Module = type(name, (_Published,), {"published": name})()
    return made


def _renamed(module: nn.Module) -> nn.Module:
    """A copy of the tree that shares the tensors and nothing else."""
    name = NAMES.get(type(module))
    if name is None and not list(module.children()):
        return copy.deepcopy(module).cpu().requires_grad_(False)  # torch's own: a published name
    if name:
        made = _shell(name)
    else:
        made = nn.ModuleList() if isinstance(module, nn.ModuleList) else nn.Sequential()
    for key, value in module.named_parameters(recurse=False):
        made.register_parameter(key, nn.Parameter(value.detach().cpu(), requires_grad=False))
    for key, child in module.named_children():
        made.add_module(key, _renamed(child))
    if isinstance(module, transformer.Attention):
        made.__dict__.update(heads=module.heads, causal=False)
    return made

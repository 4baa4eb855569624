"""The published Prima checkpoint: a pickled module tree, or its parts, as tensors and numbers.

Nothing of the file is run (see `safe_pickle`). The text tower, which only training needs, is
neither read nor kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from inference.checkpoints import StateDict
from inference.errors import WeightsError
from inference.prima import module_tree as tree
from inference.prima.config import Components, HeadFile
from inference.prima.hiervit_sizes import HeadCounts
from inference.prima.safe_pickle import Inert, read_object
from inference.prima.torch_archive import Archive, TensorRef

COUNTED = {
    "inner": "innerViT",
    "outer": "outerViT",
    "series_name": "serieencoder",
    "study_description": "studyencoder",
}


@dataclass(frozen=True, eq=False)
class OfficialHead:
    """One network of the checkpoint.

    Attributes:
        name: its label.
        index: the output that answers it.
        threshold: in logits; None where the file names none.
        shapes: (outputs, inputs) of its linear layers.
    """

    name: str
    index: int
    threshold: float | None
    shapes: tuple[tuple[int, int], ...]
    archive: Archive
    layers: tuple[tuple[TensorRef, TensorRef], ...]

    def read(self) -> list[tuple[Tensor, Tensor]]:
        """Its tensors, from the file."""
        return [
            (self.archive.tensor(weight).float(), self.archive.tensor(bias).float())
            for weight, bias in self.layers
        ]


@dataclass(frozen=True, eq=False)
class OfficialModel:
    """What inference needs of a checkpoint; usable while its files are open."""

    visual: StateDict
    counts: HeadCounts
    diagnoses: tuple[OfficialHead, ...]
    referrals: tuple[OfficialHead, ...]
    priority: OfficialHead | None
    left_out: tuple[str, ...]


def open_official(model: Path | Components, files: ExitStack) -> OfficialModel:
    """Read the full checkpoint, or its parts.

    Raises:
        WeightsError: a file is damaged, forged, or holds something else.
    """
    return open_full(model, files) if isinstance(model, Path) else open_components(model, files)


def open_full(path: Path, files: ExitStack) -> OfficialModel:
    """Read primafullmodel107.pt; the file stays open until `files` is closed.

    Raises:
        WeightsError: damaged, forged, or not the whole model.
    """
    archive = files.enter_context(Archive(path))
    root = tree.unwrap(read_object(archive), archive)
    if root.kind.short != "FullMRIModel":
        raise archive.wrong(
            f"it holds a {root.kind.short}, not the full model; give its heads' files beside it"
        )
    clip = tree.child(root, "clipmodel", archive) if tree.has(root, "clipmodel") else None
    visual = tree.child(root, "clipvisualmodel", archive)
    priority = tree.child(root, "priorityhead", archive)
    return OfficialModel(
        visual=_visual(visual, archive),
        counts=_counts(visual, clip, archive),
        diagnoses=_heads(root, "diagnosisheads", archive),
        referrals=_heads(root, "referralheads", archive),
        priority=_head("priority", priority, 0, archive),
        left_out=_left_out(clip),
    )


def open_components(components: Components, files: ExitStack) -> OfficialModel:
    """Read a CLIP checkpoint and one file per head.

    Raises:
        WeightsError: a file is damaged, forged, or holds something else.
    """
    archive = files.enter_context(Archive(components.clip))
    root = tree.unwrap(read_object(archive), archive)
    if root.kind.short != "CLIP":
        raise archive.wrong(f"it holds a {root.kind.short}; clip_ckpt must be the CLIP model")
    visual = tree.child(root, "visual_model", archive)
    priority = HeadFile("priority", components.priority, 0, 0.0)
    return OfficialModel(
        visual=_visual(visual, archive),
        counts=_counts(visual, root, archive),
        diagnoses=tuple(_head_file(head, files) for head in components.diagnoses),
        referrals=tuple(_head_file(head, files) for head in components.referrals),
        priority=_head_file(priority, files),
        left_out=_left_out(root),
    )


def with_thresholds(
    heads: tuple[OfficialHead, ...], given: Mapping[str, tuple[int, float]], source: str
) -> tuple[OfficialHead, ...]:
    """Heads with the thresholds of a heads JSON (name -> output number, threshold).

    Raises:
        WeightsError: it names a head that is not there, or another output of one.
    """
    known = {head.name: head for head in heads}
    for name, (index, _) in given.items():
        if name not in known:
            raise WeightsError(f"{source}: {name}: the checkpoint has no such head")
        if known[name].index != index:
            raise WeightsError(
                f"{source}: {name}: output {index}, but the checkpoint says {known[name].index}"
            )
    return tuple(
        replace(head, threshold=given[head.name][1]) if head.name in given else head
        for head in heads
    )


def _visual(module: Inert, archive: Archive) -> StateDict:
    refs = tree.tensors(module, archive)
    for part, flag in (("serieencoder.", "useseriename"), ("studyencoder.", "usestudydescription")):
        if module.state.get(flag, True) is False:
            refs = {key: ref for key, ref in refs.items() if not key.startswith(part)}
    return {key: archive.tensor(ref).float() for key, ref in refs.items()}


def _counts(visual: Inert, clip: Inert | None, archive: Archive) -> HeadCounts:
    found = {}
    for field, part in COUNTED.items():
        if tree.has(visual, part):
            found[field] = _attention_heads(tree.child(visual, part, archive), part, archive)
    if clip is not None and tree.has(clip, "patchifier"):
        channels = tree.child(clip, "patchifier", archive).state.get("d", 30)
        found["position_channels"] = _natural(channels, "patchifier.d", archive)
    return HeadCounts(**found)


def _attention_heads(module: Inert, name: str, archive: Archive) -> int:
    layers = [m for _, m in tree.walk(module, archive) if m.kind.short == "Attention"]
    counts = {_natural(layer.state.get("heads"), f"{name}: heads", archive) for layer in layers}
    if len(counts) != 1 or any(layer.state.get("causal") for layer in layers):
        raise archive.wrong(f"{name}: its attention layers are not of one, non-causal kind")
    return counts.pop()


def _heads(root: Inert, attribute: str, archive: Archive) -> tuple[OfficialHead, ...]:
    table = root.state.get(attribute)
    if not isinstance(table, dict) or not table:
        raise archive.wrong(f"it has no table {attribute} of its heads")
    return tuple(_entry(name, entry, archive) for name, entry in table.items())


def _entry(name: Any, entry: Any, archive: Archive) -> OfficialHead:
    if not isinstance(name, str) or not isinstance(entry, (list, tuple)) or len(entry) < 2:
        raise archive.wrong(f"head {name!r}: not a network and the number of its output")
    network, index = entry[0], entry[1]
    return _head(name, tree.unwrap(network, archive), index, archive)


def _head(name: str, module: Inert, index: Any, archive: Archive) -> OfficialHead:
    threshold = module.state.get("thresh")
    if isinstance(threshold, TensorRef):
        value = archive.tensor(threshold)
        threshold = value.item() if value.numel() == 1 else None
    layers = tuple(tree.linear_layers(module, name, archive))
    return _checked(name, layers, index, threshold, archive)


def _head_file(head: HeadFile, files: ExitStack) -> OfficialHead:
    archive = files.enter_context(Archive(head.path))
    found = read_object(archive)
    if isinstance(found, dict):
        layers = tuple(_plain_layers(found, archive))
        return _checked(head.name, layers, head.index, head.threshold, archive)
    module = tree.unwrap(found, archive)
    return replace(_head(head.name, module, head.index, archive), threshold=head.threshold)


def _plain_layers(
    state: Mapping[Any, Any], archive: Archive
) -> Iterator[tuple[TensorRef, TensorRef]]:
    """Layers of a bare state_dict: 0.weight, 0.bias, 2.weight, ..."""
    places = sorted({int(k[:-7]) for k in state if isinstance(k, str) and k[:-7].isdecimal()})
    if {f"{place}.{kind}" for place in places for kind in ("weight", "bias")} != set(state):
        raise archive.wrong("its state_dict is not that of a head: 0.weight, 0.bias, 2.weight, ...")
    for place in places:
        weight, bias = state[f"{place}.weight"], state[f"{place}.bias"]
        if not isinstance(weight, TensorRef) or not isinstance(bias, TensorRef):
            raise archive.wrong(f"layer {place} holds no tensors")
        yield weight, bias


def _checked(
    name: str,
    layers: tuple[tuple[TensorRef, TensorRef], ...],
    index: Any,
    threshold: Any,
    archive: Archive,
) -> OfficialHead:
    shapes = []
    for weight, bias in layers:
        if len(weight.shape) != 2 or bias.shape != weight.shape[:1]:
            raise archive.wrong(f"head {name}: a layer's weight and bias do not fit each other")
        shapes.append((weight.shape[0], weight.shape[1]))
    if any(before[0] != after[1] for before, after in pairwise(shapes)):
        raise archive.wrong(f"head {name}: its layers do not fit each other")
    if type(index) is not int or not shapes or not 0 <= index < shapes[-1][0]:
        raise archive.wrong(f"head {name}: output {index!r} is not one it has")
    if threshold is not None and type(threshold) not in (int, float):
        raise archive.wrong(f"head {name}: its threshold is no number")
    value = None if threshold is None else float(threshold)
    return OfficialHead(name, index, value, tuple(shapes), archive, layers)


def _natural(value: Any, what: str, archive: Archive) -> int:
    if type(value) is not int or value < 1:
        raise archive.wrong(f"{what}: {value!r} is no positive whole number")
    return value


def _left_out(clip: Inert | None) -> tuple[str, ...]:
    return ("text tower",) if clip is not None and tree.has(clip, "text_model") else ()

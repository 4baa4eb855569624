"""Finds its way in the inert module tree of a pickled torch model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inference.prima.safe_pickle import Collected, Inert
from inference.prima.torch_archive import Archive, TensorRef

WRAPPERS = frozenset(["DataParallel", "DistributedDataParallel"])
MAX_DEPTH = 32
MAX_MODULES = 100_000
SILENT = frozenset(["ReLU", "Dropout", "Identity"])
"""What may stand between the linear layers of a head; of these only ReLU acts."""


def unwrap(value: Any, archive: Archive) -> Inert:
    """The module inside wrappers for several GPUs.

    Raises:
        WeightsError: it is no module.
    """
    for _ in range(MAX_DEPTH):
        if not isinstance(value, Inert):
            break
        if value.kind.short not in WRAPPERS:
            return value
        value = _table(value, "_modules").get("module")
    raise archive.wrong("it holds no module where one is expected")


def has(module: Inert, name: str) -> bool:
    """Whether a module has a child of this name."""
    return isinstance(_table(module, "_modules").get(name), Inert)


def child(module: Inert, name: str, archive: Archive) -> Inert:
    """A child by its name, unwrapped.

    Raises:
        WeightsError: there is none.
    """
    found = _table(module, "_modules").get(name)
    if found is None:
        raise archive.wrong(f"its {module.kind.short} has no {name}; it is another model")
    return unwrap(found, archive)


def walk(module: Inert, archive: Archive) -> Iterator[tuple[str, Inert]]:
    """A module and everything below it, each with its prefix; parents first.

    Raises:
        WeightsError: the tree contains itself or is larger than any model's.
    """
    pending = [("", module, 0)]
    seen = 0
    while pending:
        prefix, current, depth = pending.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_MODULES:
            raise archive.wrong("its modules contain each other, or are too many; it is forged")
        yield prefix, current
        below = _table(current, "_modules").items()
        pending += [
            (f"{prefix}{name}.", inner, depth + 1)
            for name, inner in reversed(below)
            if isinstance(inner, Inert)
        ]


def tensors(module: Inert, archive: Archive) -> dict[str, TensorRef]:
    """Parameters and stored buffers of a module and all below, under their state_dict keys."""
    found: dict[str, TensorRef] = {}
    for prefix, current in walk(module, archive):
        hidden = current.state.get("_non_persistent_buffers_set")
        unsaved = hidden.items if isinstance(hidden, Collected) else []
        buffers = _table(current, "_buffers").items()
        own = {
            **_table(current, "_parameters"),
            **{name: value for name, value in buffers if name not in unsaved},
        }
        found |= {f"{prefix}{k}": v for k, v in own.items() if isinstance(v, TensorRef)}
    return found


def linear_layers(
    module: Inert, name: str, archive: Archive
) -> Iterator[tuple[TensorRef, TensorRef]]:
    """Weight and bias of each linear layer of Linear, ReLU, ..., Linear.

    Raises:
        WeightsError: the head is built otherwise.
    """
    kinds = [
        m.kind.short if isinstance(m, Inert) else "" for m in _table(module, "_modules").values()
    ]
    acting = [kind for kind in kinds if kind not in SILENT - {"ReLU"}]
    wanted = ["ReLU" if place % 2 else "Linear" for place in range(len(acting))]
    if module.kind.short != "Sequential" or acting != wanted or not len(acting) % 2:
        raise archive.wrong(f"head {name}: not linear layers with ReLU between: {kinds[:9]}")
    for layer in _table(module, "_modules").values():
        if layer.kind.short != "Linear":
            continue
        own = _table(layer, "_parameters")
        weight, bias = own.get("weight"), own.get("bias")
        if not isinstance(weight, TensorRef) or not isinstance(bias, TensorRef):
            raise archive.wrong(f"head {name}: a linear layer lacks weight or bias")
        yield weight, bias


def _table(module: Inert, name: str) -> dict[Any, Any]:
    found = module.state.get(name)
    return found if isinstance(found, dict) else {}

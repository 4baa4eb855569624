"""Reads weights files without running what they hold, and loads them without losing a key.

Official files come as `pytorch_model.bin` (a pickle) or safetensors, bare or inside
{"state_dict": ...}, sometimes as Lightning checkpoints with other modules beside the wanted one.
"""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from inference.errors import WeightsError

StateDict = dict[str, Tensor]
_DAMAGED = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    struct.error,
    TypeError,
    ValueError,
)
"""What torch's restricted unpickler raises on bytes that are no weights file."""
NAMED_KEYS = 8
"""Keys that an error message spells out before it counts the rest."""


@dataclass(frozen=True)
class Layout:
    """A known place of a module inside a checkpoint.

    Attributes:
        prefix: what precedes the module's own keys.
        beside: prefixes of other modules that such a checkpoint rightly holds.
    """

    prefix: str = ""
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """A module's keys out of a checkpoint, and the keys of other modules left behind."""

    state: StateDict
    layout: Layout
    dropped: tuple[str, ...]


def read_state_dict(path: Path) -> StateDict:
    """Read the tensors of a weights file on the CPU, unwrapped from {"state_dict": ...}.

    Raises:
        WeightsError: no such file, not a weights file, or a pickle that asks for more than tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path.name}: no such weights file; download or export it first")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise WeightsError(
            f"{path.name}: not a plain weights file, it is damaged or its pickle holds more than "
            "tensors; export the state_dict alone"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found:
        raise WeightsError(f"{path.name}: holds no state_dict")
    strange = [str(key) for key, value in found.items() if not isinstance(value, Tensor)]
    if strange:
        raise WeightsError(f"{path.name}: {_spell(strange)} are no tensors")
    return {str(key): value for key, value in found.items()}


def select(state: StateDict, anchor: str, layouts: Sequence[Layout], name: str) -> Selection:
    """Take the keys of one module, found by the layout whose prefix leads to `anchor`.

    Raises:
        WeightsError: no known layout fits, or keys remain that belong to no known module.
    """
    for layout in layouts:
        if layout.prefix + anchor in state:
            break
    else:
        others = sorted(key.removesuffix(anchor) for key in state if key.endswith(anchor))
        hint = f"; it lies under {others}" if others else ""
        known = [layout.prefix for layout in layouts]
        raise WeightsError(f"{name}: no key {anchor!r} under a known prefix {known}{hint}")
    inside = {
        k.removeprefix(layout.prefix): v for k, v in state.items() if k.startswith(layout.prefix)
    }
    dropped = tuple(key for key in state if not key.startswith(layout.prefix))
    foreign = [key for key in dropped if not key.startswith(layout.beside or ("\0",))]
    if foreign:
        raise WeightsError(
            f"{name}: unexpected keys {_spell(foreign)}; the file is of another model"
        )
    return Selection(inside, layout, dropped)


def load_strictly(module: nn.Module, state: StateDict, name: str) -> None:
    """Load every tensor into its place, refusing the file if any key or shape differs.

    Raises:
        WeightsError: names missing, unexpected and mis-shaped keys, and tensors with NaN.
    """
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    shapes = [
        f"{key} is {list(state[key].shape)}, not {list(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    faults = [
        f"{kind} {_spell(keys)}"
        for kind, keys in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shapes))
        if keys
    ]
    if faults:
        raise WeightsError(
            f"{name}: {'; '.join(faults)}. The weights do not belong to this configuration"
        )
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise WeightsError(f"{name}: {_spell(broken)} hold NaN or infinite values; fetch it again")
    module.load_state_dict(state, strict=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> StateDict:
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path.name}: not a safetensors file or damaged; fetch it again"
        ) from error


def _spell(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:NAMED_KEYS])
    rest = len(keys) - NAMED_KEYS
    return f"{shown} and {rest} more" if rest > 0 else shown

"""Diagnosis, referral and priority heads: many small networks, evaluated together.

Legend: L networks ("heads"), B studies, E embedding width, O outputs of one network. Each network
is Linear-ReLU-Linear-ReLU-Linear; stacked, a layer of all of them is one product.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from inference.checkpoints import StateDict
from inference.errors import InputError, WeightsError

PRIORITY_LEVELS = {3: ("none", "low", "high"), 4: ("none", "low", "medium", "high")}
"""Names of a priority head's outputs; which it is, the number of outputs says."""
Network = Sequence[tuple[Tensor, Tensor]]
"""Weight and bias of each linear layer."""
_PLACE = re.compile(r"layers\.(\d+)\.(weight|bias)")


@dataclass(frozen=True)
class HeadOutputs:
    """Raw outputs of a pack's heads: [L] for one study, [B, L] for several; None without head."""

    diagnoses: Tensor | None = None
    referral: Tensor | None = None
    priority: Tensor | None = None


class StackedHeads(nn.Module):
    """Networks of one shape, evaluated in one batched product per layer.

    Keys: ``layers.0.weight`` [L, hidden, E], ``layers.0.bias`` [L, hidden], ``layers.1...``.
    """

    def __init__(self, state: Mapping[str, Tensor], name: str = "heads") -> None:
        """Take the stacked tensors as they are, without a copy.

        Raises:
            WeightsError: keys or shapes do not form a stack of networks.
        """
        super().__init__()
        weights, biases = _read(state, name)
        pairs = zip(weights, biases, strict=True)
        self.layers = nn.ModuleList(StackedLinear(weight, bias) for weight, bias in pairs)

    @property
    def count(self) -> int:
        """Networks."""
        return self._shape(0)[0]

    @property
    def width(self) -> int:
        """Width of the embeddings they read."""
        return self._shape(0)[2]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return cast("StackedLinear", self.layers[0]).weight.dtype

    @property
    def outputs(self) -> int:
        """Outputs of each network (of the largest, where smaller ones were filled up)."""
        return self._shape(-1)[1]

    def forward(self, embeddings: Tensor) -> Tensor:
        """All outputs of all networks: [B, E] -> [B, L, O].

        Raises:
            InputError: the embeddings have another width.
        """
        if embeddings.shape[-1] != self.width:
            raise InputError(f"embeddings {embeddings.shape[-1]} wide; the heads read {self.width}")
        first, *rest = cast("Iterable[StackedLinear]", self.layers)
        x = first.spread(embeddings)
        for layer in rest:
            x = layer(x.relu())
        return x.transpose(0, 1)

    def chosen(self, embeddings: Tensor, indices: Sequence[int]) -> Tensor:
        """The output of each network that answers its label: [B, L].

        Raises:
            InputError: as many indices as networks are needed, each an output there is.
        """
        if len(indices) != self.count or not all(0 <= i < self.outputs for i in indices):
            raise InputError(
                f"{len(indices)} output numbers for {self.count} heads of {self.outputs} outputs"
            )
        outputs: Tensor = self(embeddings)
        place = torch.tensor(indices, device=outputs.device)
        return outputs.gather(2, place[None, :, None].expand(len(outputs), -1, 1)).squeeze(2)

    def _shape(self, layer: int) -> tuple[int, ...]:
        return tuple(cast("StackedLinear", self.layers[layer]).weight.shape)


class StackedLinear(nn.Module):
    """The same layer of every network."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Each network its own rows: [L, B, in] -> [L, B, out]."""
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.transpose(1, 2))

    def spread(self, x: Tensor) -> Tensor:
        """All networks the same rows, as one matrix: [B, in] -> [L, B, out]."""
        flat = nn.functional.linear(x, self.weight.flatten(0, 1), self.bias.flatten())
        return flat.view(len(x), *self.bias.shape).transpose(0, 1)


def stack(
    shapes: Sequence[Sequence[tuple[int, int]]],
    read: Callable[[int], Network],
    name: str = "heads",
) -> StateDict:
    """Stack networks read one after the other, filling smaller layers up with zeros.

    A hidden unit of zeros adds nothing, so every network keeps its numbers.

    Args:
        shapes: of each network, (outputs, inputs) of its layers.
        read: the tensors of one network.
        name: for errors.

    Raises:
        WeightsError: they differ in depth or in the embedding they read.
    """
    depths = {len(network) for network in shapes}
    widths = {network[0][1] for network in shapes if network}
    if len(depths) != 1 or depths == {0} or len(widths) != 1:
        raise WeightsError(f"{name}: networks of depths {depths} and input widths {widths}")
    sizes = [widths.pop(), *(max(out for out, _ in layers) for layers in zip(*shapes, strict=True))]
    state: StateDict = {}
    for place, (before, size) in enumerate(pairwise(sizes)):
        state[f"layers.{place}.weight"] = torch.zeros(len(shapes), size, before)
        state[f"layers.{place}.bias"] = torch.zeros(len(shapes), size)
    for row in range(len(shapes)):
        for place, (weight, bias) in enumerate(read(row)):
            state[f"layers.{place}.weight"][row, : weight.shape[0], : weight.shape[1]] = weight
            state[f"layers.{place}.bias"][row, : len(bias)] = bias
    return state


def priority_levels(outputs: int) -> tuple[str, ...]:
    """Names of a priority head's outputs, least urgent first.

    Raises:
        WeightsError: neither three nor four outputs; their meaning is not guessed.
    """
    if outputs not in PRIORITY_LEVELS:
        raise WeightsError(
            f"priority head: {outputs} outputs; known are 3 (none, low, high) and 4 (none, low, "
            "medium, high)"
        )
    return PRIORITY_LEVELS[outputs]


def _read(state: Mapping[str, Tensor], name: str) -> tuple[list[Tensor], list[Tensor]]:
    places = {key: match for key in state if (match := _PLACE.fullmatch(key))}
    strange = sorted(set(state) - set(places))
    depth = len({match.group(1) for match in places.values()})
    wanted = {f"layers.{i}.{kind}" for i in range(depth) for kind in ("weight", "bias")}
    if strange or not depth or wanted != set(places):
        raise WeightsError(f"{name}: no stack of networks; odd keys: {strange or sorted(places)}")
    weights = [state[f"layers.{i}.weight"] for i in range(depth)]
    biases = [state[f"layers.{i}.bias"] for i in range(depth)]
    for place, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        before = weights[place - 1].shape[1] if place else weight.shape[-1]
        if weight.ndim != 3 or bias.shape != weight.shape[:2] or weight.shape[2] != before:
            raise WeightsError(f"{name}: layers.{place} does not fit the layer before it")
        if len(weight) != len(weights[0]):
            raise WeightsError(f"{name}: layers.{place} holds {len(weight)} networks")
        if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise WeightsError(f"{name}: layers.{place} holds NaN or infinite values")
    return weights, biases

"""Heads evaluated together give what each gives alone; what an output means is never guessed."""

from __future__ import annotations

import pytest
import torch
from factories import prima
from torch import nn

from inference.errors import InputError, WeightsError
from inference.prima.heads import StackedHeads, priority_levels, stack


def layers(network: nn.Sequential) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of the linear layers."""
    return [(part.weight, part.bias) for part in network if isinstance(part, nn.Linear)]


def stacked(networks: list[nn.Sequential]) -> StackedHeads:
    """The networks as one."""
    shapes = [[tuple(weight.shape) for weight, _ in layers(n)] for n in networks]
    return StackedHeads(stack(shapes, lambda row: layers(networks[row])))


def test_all_heads_at_once_equal_one_by_one():
    """Networks of different hidden sizes and outputs keep their numbers in the stack."""
    networks = [prima.head(i, outputs=2 + i, hidden=(4 + 3 * i, 7 - i)) for i in range(4)]
    heads, indices = stacked(networks), [1, 0, 3, 2]
    torch.manual_seed(0)
    embeddings = torch.randn(3, 24)
    alone = torch.stack([n(embeddings)[:, i] for n, i in zip(networks, indices, strict=True)], 1)
    torch.testing.assert_close(heads.chosen(embeddings, indices), alone)
    torch.testing.assert_close(heads.chosen(embeddings[:1], indices), alone[:1])


def test_a_stack_reads_its_own_files_only():
    """Odd keys, other depths and NaN are named before anything is computed."""
    state = dict(stacked([prima.head(1)]).state_dict())
    with pytest.raises(WeightsError, match="odd keys"):
        StackedHeads({**state, "extra": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"layers\.1 does not fit"):
        StackedHeads({**state, "layers.1.weight": torch.zeros(1, 5, 99)})
    with pytest.raises(WeightsError, match="NaN"):
        StackedHeads({**state, "layers.0.bias": state["layers.0.bias"] * torch.nan})
    with pytest.raises(WeightsError, match="depths"):
        stack([[(3, 24)], [(3, 24), (2, 3)]], lambda _: [])


def test_indices_must_be_outputs_that_exist():
    """One number a head, each below the number of outputs."""
    heads = stacked([prima.head(1), prima.head(2)])
    with pytest.raises(InputError, match="2 heads of 3 outputs"):
        heads.chosen(torch.zeros(1, 24), [0, 3])
    with pytest.raises(InputError, match="25 wide"):
        heads(torch.zeros(1, 25))


@pytest.mark.parametrize(
    ("outputs", "levels"),
    [(3, ("none", "low", "high")), (4, ("none", "low", "medium", "high"))],
)
def test_priority_levels_follow_the_number_of_outputs(outputs: int, levels: tuple[str, ...]):
    """Both published heads are known."""
    assert priority_levels(outputs) == levels


def test_a_priority_head_of_another_arity_is_refused():
    """Five outputs could mean anything."""
    with pytest.raises(WeightsError, match="5 outputs"):
        priority_levels(5)

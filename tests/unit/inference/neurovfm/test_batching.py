"""Batches by token budget: same numbers, bounded memory, out of memory survived."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import OutOfMemoryError
from inference.neurovfm import batching
from inference.neurovfm.batching import Packed, embed, plan
from inference.neurovfm.model import VisionTransformer
from inference.neurovfm.tokens import Window

WINDOWS = (Window.BRAIN, Window.BLOOD, Window.BONE, Window.MRI, Window.MRI)


OUT_OF_MEMORY = (
    torch.OutOfMemoryError("no room"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
)


def packed(lengths: tuple[int, ...] = (6, 6, 6, 11, 2)) -> Packed:
    """Random tokens of five series."""
    torch.manual_seed(5)
    total = sum(lengths)
    coords = torch.randint(0, 16, (total, 3))
    return Packed(torch.rand(total, 1024), coords, lengths, WINDOWS[: len(lengths)])


class Cramped(torch.nn.Module):
    """An encoder on a device that holds few tokens at a time."""

    def __init__(
        self, model: VisionTransformer, room: int, error: RuntimeError = OUT_OF_MEMORY[0]
    ) -> None:
        super().__init__()
        self.model, self.config, self.room, self.error = model, model.config, room, error

    def forward(self, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        """Fail as CUDA does when there are too many tokens."""
        if len(tokens) > self.room:
            raise self.error
        return self.model(tokens, *rest)


@given(st.lists(st.integers(0, 50)), st.integers(1, 60))
def test_a_plan_covers_every_series_once_in_order(lengths: list[int], budget: int):
    """Ranges join up, and only a single series may exceed the budget."""
    ranges = list(plan(lengths, budget))
    assert [i for first, last in ranges for i in range(first, last)] == list(range(len(lengths)))
    for first, last in ranges:
        series = [n for n in lengths[first:last] if n]
        assert sum(series) <= budget or len(series) == 1


@pytest.mark.parametrize("budget", [1, 7, 12, 1000])
def test_any_budget_gives_the_same_embeddings(encoder: VisionTransformer, budget: int):
    """Cuts between series change nothing."""
    whole = embed(encoder, packed(), token_budget=1000)
    torch.testing.assert_close(embed(encoder, packed(), token_budget=budget), whole)


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_running_out_of_memory_splits_the_batch(encoder: VisionTransformer, error: RuntimeError):
    """Halves are tried until each fits; the answer is the same."""
    cramped: Any = Cramped(encoder, room=12, error=error)
    torch.testing.assert_close(
        embed(cramped, packed(), device=torch.device("cpu")), embed(encoder, packed())
    )


def test_one_series_too_large_is_an_error_of_its_own(encoder: VisionTransformer):
    """It cannot be split: the study fails with a reason, the process goes on."""
    cramped: Any = Cramped(encoder, room=10)
    with pytest.raises(OutOfMemoryError, match="one series alone"):
        embed(cramped, packed(), device=torch.device("cpu"))


def test_other_faults_are_not_taken_for_memory(encoder: VisionTransformer):
    """Only a lack of memory is met by smaller batches."""
    cramped: Any = Cramped(encoder, room=12, error=RuntimeError("size mismatch"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        embed(cramped, packed(), device=torch.device("cpu"))


def test_a_study_without_series_has_no_embeddings(encoder: VisionTransformer):
    """Nothing in, nothing out."""
    empty = batching.pack([])
    assert embed(encoder, empty).shape == (0, 48)

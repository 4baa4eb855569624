"""Shared fixtures of the training tests: few threads, studies made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch

from training.synthetic.study import SyntheticStudy, make_study

Maker = Callable[..., SyntheticStudy]


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def study() -> Maker:
    """`make_study` on a small matrix; the same request is made once a session."""

    @cache
    def make(modality: str, *pathologies: str, seed: int = 11) -> SyntheticStudy:
        return make_study(seed, modality, pathologies, matrix=128, severity=0.6)

    return make

"""What every recipe shares: device, processes, seeds, checkpoints, progress and TensorBoard."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from torch import distributed

log = structlog.get_logger(__name__)

REPORT_S = 10.0


class RunError(Exception):
    """A run cannot start or go on; the message says what to mend."""


@dataclass(frozen=True)
class Place:
    """This process of a run.

    Attributes:
        device: where tensors live.
        rank, world: which of how many processes; set by torchrun.
        dtype: of autocast; None = float32 throughout.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    dtype: torch.dtype | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0


@contextlib.contextmanager
def take_place(device: str = "auto", precision: str = "auto") -> Iterator[Place]:
    """Join the processes that torchrun started, or run alone.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``bf16``, ``fp32`` or ``auto`` (bf16 on a GPU).

    Raises:
        RunError: CUDA was asked for and is not there.
    """
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise RunError("device cuda: torch finds no GPU; use device = cpu, or install CUDA's torch")
    kind = "cuda" if device in ("auto", "cuda") and cuda else "cpu"
    half = precision == "bf16" or (precision == "auto" and kind == "cuda")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    chosen = torch.device(kind, local) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(chosen)
    if world > 1:
        distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Place(chosen, rank, world, torch.bfloat16 if half else None)
    finally:
        if world > 1:
            distributed.destroy_process_group()


def seed_everything(seed: int) -> None:
    """The same seed for Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def mean_over_processes(value: float, place: Place) -> float:
    """The mean of a number over all processes."""
    if place.world == 1:
        return value
    held = torch.tensor([value], dtype=torch.float64, device=place.device)
    if place.device.type != "cpu":
        held = held.float()
    distributed.all_reduce(held)
    return float(held.item()) / place.world


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all; random states are added."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    random_states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        random_states["cuda"] = torch.cuda.get_rng_state()
    torch.save({**state, "random": random_states}, temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(path: Path, place: Place) -> dict[str, Any] | None:
    """The last checkpoint of a run, its random states restored; None when there is none.

    Raises:
        RunError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise RunError(f"{path}: damaged; remove it to begin anew") from error
    torch.set_rng_state(state["random"]["torch"])
    if place.device.type == "cuda" and "cuda" in state["random"]:
        torch.cuda.set_rng_state(state["random"]["cuda"])
    return state


class Reporter:
    """Progress to the log every few seconds, every number to TensorBoard where it is installed."""

    def __init__(self, folder: Path, place: Place, total: int, start: int = 0) -> None:
        self._total = total
        self._start = start
        self._since = self._last = time.monotonic()
        self._writer = _board(folder) if place.first else None
        self._first = place.first

    def step(self, number: int, values: Mapping[str, float]) -> None:
        """Report a step that has ended; `number` counts from 0."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, number)
        now = time.monotonic()
        if not self._first or (now - self._last < REPORT_S and number + 1 < self._total):
            return
        self._last = now
        done = number + 1 - self._start
        left = (now - self._since) / max(done, 1) * (self._total - number - 1)
        shown = {name: float(f"{value:.4g}") for name, value in values.items()}
        log.info("training_step", step=number + 1, of=self._total, eta_s=round(left), **shown)

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._writer is not None:
            self._writer.close()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("tensorboard_missing", mend="install the extra 'train' for curves")
        return None
    return SummaryWriter(str(folder / "board"))

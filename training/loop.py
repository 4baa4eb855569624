"""The loop that the recipes of Prima and of instruction tuning share: steps, checkpoints, progress.

A run is a function of its seed: the random state of a step is made from seed, step and process, so
that a run which was stopped goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import structlog
import torch
from torch import Tensor, distributed, nn

from training import runtime
from training.runtime import Place, RunError

log = structlog.get_logger(__name__)

T = TypeVar("T")
Rate = Callable[[int], float]
"""Learning rate of an optimizer step, counted from 0."""


@dataclass(frozen=True)
class Steps:
    """What steers a run.

    Attributes:
        total: optimizer steps.
        rate: learning rate at each.
        seed: of the run.
        clip: largest norm of the gradient; 0 = not clipped.
        zero_nan: a gradient that is no number becomes 0, as the published code does; otherwise the
            run stops there.
        save_every: steps between checkpoints.
    """

    total: int
    rate: Rate
    seed: int = 0
    clip: float = 0.0
    zero_nan: bool = False
    save_every: int = 500


@dataclass
class Trained:
    """A module whose forward pass is a loss, and what moves it.

    Attributes:
        module: called with what `batch_of` gives; returns the loss and numbers to report.
        kept: names of the parameters and buffers that a checkpoint holds; None = all.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    kept: Callable[[str], bool] | None = None


def run(
    trained: Trained,
    batch_of: Callable[[int, np.random.Generator], Any],
    steps: Steps,
    out: Path,
    place: Place,
    after: Callable[[int], None] | None = None,
) -> list[float]:
    """Train to the end, from the last checkpoint in `out` if there is one.

    Args:
        trained: on its device.
        batch_of: the batch of a step; everything random in it comes from the generator. A list is
            accumulated: one backward pass for each part, one optimizer step for all.
        steps: length and rates.
        out: folder of the run.
        place: this process.
        after: called with the number of each step that has ended, before its checkpoint.

    Returns:
        The loss of every step of this call.

    Raises:
        RunError: the loss is no number, or the checkpoint is damaged or of another model.
    """
    path = out / "checkpoint.pt"
    first = _resume(trained, path, place)
    wrapped = _wrapped(trained.module, place)
    reporter = runtime.Reporter(out, place, steps.total, first)
    losses = []
    for step in range(first, steps.total):
        rng = _seeded(steps.seed, step, place)
        batch = batch_of(step, rng)
        for group in trained.optimizer.param_groups:
            group["lr"] = steps.rate(step)
        trained.optimizer.zero_grad(set_to_none=True)
        values = _backward(wrapped, batch if isinstance(batch, list) else [batch], place)
        values |= _gradients(trained.module, steps, step)
        trained.optimizer.step()
        values["learning_rate"] = steps.rate(step)
        values["loss"] = runtime.mean_over_processes(values["loss"], place)
        losses.append(values["loss"])
        reporter.step(step, values)
        if after is not None:
            after(step)
        last = step + 1 == steps.total
        if place.first and (last or (step + 1) % steps.save_every == 0):
            _save(trained, path, step + 1)
    reporter.close()
    return losses


def gather(rows: Tensor, place: Place) -> Tensor:
    """Rows [n, F] of all processes in their order; gradients reach ours.

    Every process then computes the same loss of all rows; DDP's mean of the gradients is the
    gradient of that loss, as if one process had held them all.
    """
    if place.world == 1:
        return rows
    mine = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(mine) for _ in range(place.world)]
    distributed.all_gather(counts, mine)
    sizes = [int(count) for count in counts]
    padded = nn.functional.pad(rows, (0, 0, 0, max(sizes) - len(rows)))
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded.detach().contiguous())
    held = [part[:size] for part, size in zip(parts, sizes, strict=True)]
    held[place.rank] = _weighed(rows, place.world)
    return torch.cat(held)


def share(items: Sequence[T], place: Place) -> list[T]:
    """This process' part of work that is done once and kept in files."""
    return list(items[place.rank :: place.world])


def wait(place: Place) -> None:
    """Until all processes are here."""
    if place.world > 1:
        distributed.barrier()


def epochs(count: int, size: int, seed: int, place: Place) -> Callable[[int], list[int]]:
    """Which of `count` items make the batch of a step; shuffled anew every epoch, shared out.

    Raises:
        RunError: there is none.
    """
    if not count:
        raise RunError("nothing to train on: the training set is empty")
    span = size * place.world
    per_epoch = max(1, count // span)

    def of(step: int) -> list[int]:
        order = np.random.default_rng((seed, step // per_epoch)).permutation(count)
        if count < span:  # fewer items than a batch: each process takes its share, at least one
            order = np.resize(order, max(count, place.world))
            return [int(i) for i in order[place.rank :: place.world]]
        first = (step % per_epoch) * span + place.rank * size
        return [int(i) for i in order[first : first + size]]

    return of


def _weighed(rows: Tensor, world: int) -> Tensor:
    """Rows whose gradient counts once for each process, as DDP will divide it by their number."""
    mine = rows.clone()
    if mine.requires_grad:
        mine.register_hook(lambda gradient: gradient * world)  # type: ignore[no-untyped-call]  # as torch ships it
    return mine


def _seeded(seed: int, step: int, place: Place) -> np.random.Generator:
    torch.manual_seed((seed * 1_000_003 + step) * place.world + place.rank)
    return np.random.default_rng((seed, step, place.rank))


def _wrapped(module: nn.Module, place: Place) -> nn.Module:
    if place.world == 1:
        return module
    ids = [place.device.index] if place.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(module, device_ids=ids, find_unused_parameters=True)


def _backward(module: nn.Module, parts: list[Any], place: Place) -> dict[str, float]:
    """Mean loss of the parts; gradients add up, and travel between processes with the last."""
    sums: dict[str, float] = {}
    for number, part in enumerate(parts, start=1):
        several = isinstance(module, nn.parallel.DistributedDataParallel) and number < len(parts)
        half = torch.autocast(
            place.device.type, place.dtype or torch.bfloat16, place.dtype is not None
        )
        with module.no_sync() if several else contextlib.nullcontext():  # type: ignore[operator]
            with half:
                loss, values = module(part)
            (loss / len(parts)).backward()
        for name, value in {"loss": float(loss.detach()), **values}.items():
            sums[name] = sums.get(name, 0.0) + float(value) / len(parts)
    return sums


def _gradients(module: nn.Module, steps: Steps, step: int) -> dict[str, float]:
    """Mend or refuse gradients that are no numbers; clip; tell their norm."""
    given = [p for p in module.parameters() if p.grad is not None]
    lost = 0
    for parameter in given:
        if parameter.grad is None:
            continue
        bad = ~torch.isfinite(parameter.grad)
        if steps.zero_nan and bad.any():
            lost += int(bad.sum())
            parameter.grad = parameter.grad.masked_fill(bad, 0.0)
    norm = float(nn.utils.clip_grad_norm_(given, steps.clip or math.inf))
    if not math.isfinite(norm):
        raise RunError(f"a gradient is {norm} at step {step}; lower the rate or use precision fp32")
    return {"gradient_norm": norm, **({"gradients_zeroed": float(lost)} if lost else {})}


def _state(trained: Trained) -> dict[str, Any]:
    kept = trained.kept or (lambda _: True)
    return {name: value for name, value in trained.module.state_dict().items() if kept(name)}


def _save(trained: Trained, path: Path, step: int) -> None:
    optimizer = trained.optimizer.state_dict()
    state: Mapping[str, Any] = {"model": _state(trained), "optimizer": optimizer, "step": step}
    runtime.save_checkpoint(path, state)


def _resume(trained: Trained, path: Path, place: Place) -> int:
    """Step to go on from."""
    state = runtime.load_checkpoint(path, place)
    if state is None:
        return 0
    if set(state["model"]) != set(_state(trained)):
        raise RunError(f"{path}: belongs to another model; choose another folder for this run")
    try:
        trained.module.load_state_dict(state["model"], strict=False)
        trained.optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"{path}: belongs to a model of another size; choose another folder"
        ) from error
    log.info("training_resumed", step=state["step"])
    return int(state["step"])

"""Which tokens of which series speak for an answer: LIME on Prima's tokens.

Tokens of one series at a time are left out at random, as the foreground filter leaves tokens out;
the vectors of the other series are kept. The change of every output is then fitted by what was
left. All outputs share one set of samples, so explaining many costs as much as explaining one.

Legend: n tokens of a series, F groups of them, M samples, S series, L outputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.explain import lime
from inference.explain.options import ExplainOptions, Progress
from inference.prima.heads import HeadOutputs
from inference.prima.hiervit import TOKEN_BUDGET
from inference.prima.model import EncodedSeries, PrimaModel

MIN_SAMPLES = 32
"""Fewer than these say nothing about any token."""
CPU_TOKENS = 4096
"""Tokens of a batch on a CPU: more are no faster there, and progress would be told too rarely."""

Read = Callable[[HeadOutputs], Tensor]
"""The outputs to explain, [M, L], from what the heads say."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A study in the middle of the model, see `analyse.StudyVectors`.

    Attributes:
        series: encoded tokens of each series.
        vectors: [S, D].
        description: of the study, as the model reads it.
    """

    series: Sequence[EncodedSeries]
    vectors: Tensor
    description: str


@dataclass(frozen=True, eq=False)
class Explanation:
    """What LIME found about one series.

    Attributes:
        series: its number in the study.
        importance: [n, L], what each token adds to each output; tokens of a group share theirs.
        r2: [L], how well the fit explains the outputs.
        held_out_r2: [L], and those of samples it has not seen.
        samples: that were fitted.
        features: groups of tokens.
        seconds: it took.
    """

    series: int
    importance: lime.Values
    r2: lime.Values
    held_out_r2: lime.Values
    samples: int
    features: int
    seconds: float


def series_effects(model: PrimaModel, subject: Subject, read: Read) -> lime.Values:
    """What each output loses when a series is left out, [S, L]; zeros for the only series."""
    count = len(subject.vectors)
    if count < 2:
        return np.zeros((count, read(_heads(model, subject.vectors[None], subject)).shape[1]))
    rest = [subject.vectors[[i for i in range(count) if i != left]] for left in range(count)]
    # A study has tens of series at most: all variants go at once.
    whole = read(_heads(model, subject.vectors[None], subject))
    without = read(_heads(model, torch.stack(rest), subject))
    effects: lime.Values = (whole - without).double().numpy()
    return effects


def explain(
    model: PrimaModel,
    subject: Subject,
    read: Read,
    options: ExplainOptions,
    seed: Callable[[int], int],
    tell: Progress = lambda _text: None,
    scale: float = 1.0,
) -> list[Explanation]:
    """Explain the series that matter most to the outputs, the most important first.

    A progress function that raises ends it.

    Args:
        model: the networks.
        subject: the study.
        read: chooses the outputs.
        options: what it may cost.
        seed: of the samples of a series, by its number.
        tell: called with a short text after every batch of samples.
        scale: share of the usual memory.
    """
    ends = time.monotonic() + options.seconds
    order = [0]
    if len(subject.series) > 1:
        effects = np.abs(series_effects(model, subject, read)).max(axis=1)
        order = np.argsort(-effects, kind="stable").tolist()
    chosen = order[: options.series or None]
    found = []
    for place, number in enumerate(chosen):
        # What is left of the time is shared by the series that are left.
        now = time.monotonic()
        until = now + (ends - now) / (len(chosen) - place)
        title = f"explaining series {place + 1} of {len(chosen)}"
        groups = group_tokens(subject.series[number], options)
        one = _explain_series(
            _Task(model, subject, number, groups, read, title, tell, scale),
            lime.draw_masks(seed(number), options.samples, int(groups.max()) + 1),
            until,
        )
        if one is not None:
            found.append(one)
    return found


def group_tokens(
    series: EncodedSeries, options: ExplainOptions
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Group number of each token; a token that stands there twice is one feature."""
    coords = series.coords.numpy()
    side = np.full(3, 32)
    side[series.axis] = 4
    return lime.blocks(coords // side, options.features(len(coords)))


@dataclass(frozen=True, eq=False)
class _Task:
    """One series to explain."""

    model: PrimaModel
    subject: Subject
    number: int
    groups: np.ndarray[tuple[int], np.dtype[np.int64]]
    read: Read
    title: str
    tell: Progress
    scale: float

    @property
    def budget(self) -> int:
        """Tokens at a time."""
        most = CPU_TOKENS if self.model.device.type == "cpu" else TOKEN_BUDGET
        return max(1, int(most * self.scale))

    @property
    def batch(self) -> int:
        """Samples whose tokens fit the budget together, half of the tokens each."""
        return max(1, self.budget // max(1, len(self.groups) // 2))

    def outputs(self, masks: lime.Masks) -> lime.Values:
        """What the model answers to each variant: [M, L]."""
        keep = torch.from_numpy(masks[:, self.groups])
        series = self.subject.series[self.number]
        changed = self.model.encode_variants(series, keep, self.budget)
        studies = self.subject.vectors.expand(len(masks), -1, -1).clone()
        studies[:, self.number] = changed.to(studies.dtype)
        answer: lime.Values = self.read(_heads(self.model, studies, self.subject)).double().numpy()
        return answer


def _explain_series(task: _Task, masks: lime.Masks, ends: float) -> Explanation | None:
    """Sample until done or out of time, then fit; None when too little was sampled."""
    started = time.monotonic()
    parts: list[lime.Values] = []
    done = 0
    while done < len(masks) and (time.monotonic() < ends):
        parts.append(task.outputs(masks[done : done + task.batch]))
        done += len(parts[-1])
        task.tell(f"{task.title}: {done} of {len(masks)} samples")
    if done < min(MIN_SAMPLES, len(masks)):
        return None
    used = masks[:done]
    fitted = lime.fit(used, np.concatenate(parts), lime.kernel_weights(used))
    return Explanation(
        series=task.number,
        importance=fitted.coefficients[task.groups],
        r2=fitted.r2,
        held_out_r2=fitted.held_out_r2,
        samples=done,
        features=masks.shape[1],
        seconds=time.monotonic() - started,
    )


def _heads(model: PrimaModel, vectors: Tensor, subject: Subject) -> HeadOutputs:
    return model.heads(model.encode_study(vectors, subject.description))

"""Split a series' frames into stacks: parallel, equally sized, one frame per position.

Pure decisions over headers. Orientation, size, pixel spacing and the leading image type always
split. What may legally change along one volume (acquisition number of a step-and-shoot CT, echo
time, ...) splits only where two frames claim the same position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from inference.volumes.headers import FrameHeader
from inference.volumes.volume import Limits

SAME_PLACE_MM = 0.01
SAME_DIRECTION = 1e-3
"""Largest difference of a direction cosine within one stack (0.06 degrees)."""
MAX_GROUPS = 64
"""Sizes and directions of one series; a rotating projection has hundreds, anatomy a few."""

Key = Callable[[FrameHeader], Hashable]

STATIC: tuple[tuple[str, Key], ...] = (
    ("b", lambda h: h.b_value),
    ("TE", lambda h: h.echo_time),
    ("type", lambda h: h.image_type),
)
"""Frames that differ here show different contrasts of the same place."""
REPEATED: tuple[tuple[str, Key], ...] = (
    ("time point", lambda h: h.temporal_position),
    ("acquisition", lambda h: h.acquisition_number),
    ("trigger", lambda h: h.trigger_time),
    ("time", lambda h: h.acquisition_time),
)
"""Frames that differ here show the same thing again."""


@dataclass(frozen=True)
class Stack:
    """Frames of one volume-to-be, in any order."""

    frames: tuple[FrameHeader, ...]
    label: str = ""
    contrast: tuple[Hashable, ...] = ()
    """Equal for stacks that are repetitions of each other."""

    @property
    def b_value(self) -> float | None:
        """The b-value, if this is a diffusion image."""
        return self.frames[0].b_value


@dataclass(frozen=True)
class Choice:
    """The stacks to read, what to say about the others, and why none is read (if so)."""

    stacks: tuple[Stack, ...]
    warnings: tuple[str, ...] = ()
    reason: str = ""
    eligible: bool = True
    """False when the series is nothing to read; True when it should have been readable."""


def split(frames: Iterable[FrameHeader]) -> list[Stack]:
    """Split frames that have a geometry into stacks without duplicate positions."""
    result = []
    for number, group in enumerate(_parallel_groups(frames)):
        for stack in _split_by(Stack(tuple(group), contrast=(number,)), STATIC, keep=True):
            for part in _split_by(stack, REPEATED, keep=False):
                result.extend(_by_occurrence(part))
    return result


def choose(stacks: Sequence[Stack], limits: Limits) -> Choice:
    """Pick the stacks worth reading: large ones, high b-values first, repetitions once."""
    if not stacks:
        return Choice((), reason="no frame has a usable position, orientation and pixel spacing")
    large = [s for s in stacks if len(s.frames) >= limits.min_slices]
    if not large:
        most = max(len(s.frames) for s in stacks)
        reason = f"too few parallel slices: {most}, needs {limits.min_slices}"
        return Choice((), reason=reason, eligible=False)
    warnings = []
    if len(large) < len(stacks):
        left_out = sum(len(s.frames) for s in stacks) - sum(len(s.frames) for s in large)
        warnings.append(f"{left_out} frames outside any stack of {limits.min_slices} slices")
    repeats = Counter(s.contrast for s in large)
    dynamic = {c for c, n in repeats.items() if n > limits.max_repeats}
    static = [s for s in large if s.contrast not in dynamic or s.b_value is not None]
    if not static:
        count = max(repeats.values())
        reason = f"dynamic series of {count} repetitions"
        return Choice((), tuple(warnings), reason, eligible=False)
    chosen = _best(static, dynamic, limits)
    if len(chosen) < len(large):
        warnings.append(f"{len(large) - len(chosen)} of {len(large)} stacks not read")
    return Choice(tuple(chosen), tuple(warnings))


def _best(
    stacks: Sequence[Stack], dynamic: set[tuple[Hashable, ...]], limits: Limits
) -> list[Stack]:
    """At most `max_volumes`: of many diffusion directions only the first one."""
    seen: set[tuple[Hashable, ...]] = set()
    kept = []
    for stack in stacks:
        if stack.contrast in dynamic and stack.contrast in seen:
            continue
        seen.add(stack.contrast)
        kept.append(stack)
    largest = max(len(s.frames) for s in kept)
    kept.sort(key=lambda s: (len(s.frames) * 2 < largest, -(s.b_value or 0.0)))
    return kept[: limits.max_volumes]


def _parallel_groups(frames: Iterable[FrameHeader]) -> list[list[FrameHeader]]:
    """Groups of equal size, pixel spacing, leading image type and orientation.

    Frames beyond `MAX_GROUPS` directions (a rotating projection) are left out.
    """
    groups: list[tuple[Hashable, np.ndarray, list[FrameHeader]]] = []
    for frame in frames:
        if not _has_plane(frame) or frame.orientation is None or frame.pixel_spacing is None:
            continue
        spacing = tuple(round(v, 4) for v in frame.pixel_spacing)
        key = (frame.rows, frame.columns, spacing, frame.image_type[:3], frame.samples)
        directions = np.asarray(frame.orientation)
        for other_key, other_directions, members in groups:
            if key == other_key and np.abs(directions - other_directions).max() < SAME_DIRECTION:
                members.append(frame)
                break
        else:
            if len(groups) < MAX_GROUPS:
                groups.append((key, directions, [frame]))
    return [members for _, _, members in groups]


def _has_plane(frame: FrameHeader) -> bool:
    """Whether a frame lies anywhere in space: parallel direction cosines span no plane."""
    if frame.position is None or frame.orientation is None:
        return False
    normal = np.cross(frame.orientation[:3], frame.orientation[3:])
    return bool(np.linalg.norm(normal) > SAME_DIRECTION)


def _split_by(stack: Stack, keys: Sequence[tuple[str, Key]], *, keep: bool) -> list[Stack]:
    """Split where a key tells frames at the same position apart; else leave the stack whole."""
    multiplicity = _multiplicity(stack.frames)
    if multiplicity == 1:
        return [stack]
    for name, key in keys:
        parts: dict[Hashable, list[FrameHeader]] = {}
        for frame in stack.frames:
            parts.setdefault(key(frame), []).append(frame)
        if _tells_apart(list(parts.values()), multiplicity, len(set(_places(stack.frames)))):
            return [
                part
                for value, members in parts.items()
                for part in _split_by(_part(stack, members, name, value, keep), keys, keep=keep)
            ]
    return [stack]


def _tells_apart(parts: Sequence[Sequence[FrameHeader]], multiplicity: int, places: int) -> bool:
    """Whether a key explains duplicates: fewer of them in each part, and one part is a volume.

    A number that changes with every slice explains nothing, though no part of it has duplicates.
    """
    fewer = len(parts) > 1 and max(map(_multiplicity, parts)) < multiplicity
    return fewer and 2 * max(map(len, parts)) >= places


def _part(
    stack: Stack, members: list[FrameHeader], name: str, value: Hashable, keep: bool
) -> Stack:
    text = "\\".join(value) if isinstance(value, tuple) else value
    label = f"{stack.label} {name}={text}".strip() if value not in (None, "") else stack.label
    contrast = (*stack.contrast, value) if keep else stack.contrast
    return replace(stack, frames=tuple(members), label=label, contrast=contrast)


def _by_occurrence(stack: Stack) -> list[Stack]:
    """Nothing tells duplicates apart: the n-th image of every position makes the n-th stack."""
    places = _places(stack.frames)
    if max(Counter(places).values()) == 1:
        return [stack]
    order = sorted(range(len(places)), key=lambda i: stack.frames[i].instance_number)
    seen: Counter[int] = Counter()
    parts: dict[int, list[FrameHeader]] = {}
    for i in order:
        seen[places[i]] += 1
        parts.setdefault(seen[places[i]], []).append(stack.frames[i])
    return [
        replace(stack, frames=tuple(members), label=f"{stack.label} repetition={n}".strip())
        for n, members in parts.items()
    ]


def _multiplicity(frames: Sequence[FrameHeader]) -> int:
    return max(Counter(_places(frames)).values())


def _places(frames: Sequence[FrameHeader]) -> list[int]:
    """Number of each frame's position along the normal; equal numbers are duplicates."""
    normal = np.cross(frames[0].orientation[:3], frames[0].orientation[3:])  # type: ignore[index]
    along = np.array([frame.position for frame in frames]) @ normal
    order = np.argsort(along)
    numbers = np.concatenate([[0], np.cumsum(np.diff(along[order]) > SAME_PLACE_MM)])
    places = np.empty(len(frames), dtype=int)
    places[order] = numbers
    return [int(p) for p in places]

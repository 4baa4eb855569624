"""Read one series from the spool into volumes, or say why it cannot be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import structlog

from inference.errors import VolumeError
from inference.study import SeriesInput
from inference.volumes import eligibility, geometry, headers, pixels, stacks
from inference.volumes.volume import FrameRef, Limits, SeriesVolumes, Volume

log = structlog.get_logger(__name__)

GRAYSCALE = frozenset({"MONOCHROME1", "MONOCHROME2"})


def read_series(
    series: SeriesInput, limits: Limits | None = None, modality: str | None = None
) -> SeriesVolumes:
    """Turn a series' files into geometry-true volumes.

    Args:
        series: the files.
        limits: guards; the defaults fit head studies.
        modality: what the model reads (CT or MR); a series of the other one is not eligible.

    Headers are read first and decide what is decoded, so memory is bounded by the volumes given
    back. Never raises for bad input: what was left out stands in `warnings`, and a series without
    any volume has a `skipped_reason`. Neither holds anything of the patient.
    """
    limits = limits or Limits()
    found = headers.read_headers(sorted(series.files), limits)
    notes = [f"{n} files not used: {reason}" for reason, n in sorted(found.problems.items())]
    gray = [f for f in found.frames if f.samples == 1 and f.photometric in GRAYSCALE]
    if not found.frames:
        return SeriesVolumes((), tuple(notes), notes[0] if notes else "no files", complete=False)
    verdict = eligibility.judge(summarize(found.frames, series.description), modality)
    if not verdict.eligible:
        return SeriesVolumes((), tuple(notes), verdict.reason, eligible=False)
    if len(gray) < len(found.frames):
        notes.append(f"{len(found.frames) - len(gray)} color frames not used")
    choice = stacks.choose(stacks.split(gray), limits)
    notes.extend(choice.warnings)
    if not choice.stacks:
        return SeriesVolumes(
            (), tuple(notes), choice.reason, complete=False, eligible=choice.eligible
        )
    return _read_stacks(choice.stacks, notes, found, limits)


def summarize(frames: Sequence[headers.FrameHeader], description: str) -> eligibility.SeriesSummary:
    """What eligibility is judged by."""
    return eligibility.SeriesSummary(
        modality=frames[0].modality,
        sop_classes=frozenset(f.sop_class_uid for f in frames),
        frames=len(frames),
        image_types=tuple(dict.fromkeys(f.image_type for f in frames)),
        photometric=frozenset(f.photometric for f in frames),
        description=description,
        burned_in=any(f.burned_in for f in frames),
    )


def _read_stacks(
    chosen: tuple[stacks.Stack, ...],
    notes: list[str],
    found: headers.SeriesHeaders,
    limits: Limits,
) -> SeriesVolumes:
    volumes, reasons = [], []
    for stack in chosen:
        try:
            volumes.append(_read_stack(stack, limits))
        except VolumeError as error:
            reasons.append(f"{stack.label}: {error}" if stack.label else str(error))
    warnings = (*notes, *(r for r in reasons if volumes), *(w for v in volumes for w in v.warnings))
    whole = not reasons and not found.problems and not any(v.missing_slices for v in volumes)
    log.debug("series_read", volumes=len(volumes), frames=len(found.frames), warnings=warnings)
    if not volumes:
        return SeriesVolumes((), warnings, "; ".join(dict.fromkeys(reasons)), complete=False)
    return SeriesVolumes(tuple(volumes), warnings, complete=whole)


def _read_stack(stack: stacks.Stack, limits: Limits) -> Volume:
    frames = stack.frames
    if len(frames) * frames[0].rows * frames[0].columns > limits.max_voxels:
        raise VolumeError("volume larger than the limit")
    _check_units(frames)
    shape = geometry.fit(frames)
    frames = tuple(frames[i] for i in shape.order)
    decoded = pixels.decode(frames)
    array, warnings, lost = decoded.array, [], len(decoded.failed)
    if lost:
        reasons = ", ".join(sorted(set(decoded.failed.values())))
        kept = [k for k in range(len(frames)) if k not in decoded.failed]
        note = f"{lost} of {len(frames)} frames lost: {reasons}"
        if len(kept) < limits.min_slices or lost > limits.max_lost_fraction * len(frames):
            raise VolumeError(note)
        frames, array = tuple(frames[k] for k in kept), array[kept]
        shape = geometry.fit(frames)
        warnings.append(note)
    warnings.extend(_value_notes(frames))
    return Volume(
        array=array,
        affine=shape.affine,
        positions_mm=shape.positions_mm,
        frames=tuple(FrameRef(f.sop_uid, f.frame_number, f.path) for f in frames),
        spacing_mm=shape.spacing_mm,
        modality=frames[0].modality,
        frame_of_reference_uid=_frame_of_reference(frames),
        uniform=shape.uniform,
        sheared=shape.sheared,
        # A lost frame at either end leaves no gap, yet it is missing all the same.
        missing_slices=max(shape.missing_slices, lost),
        label=stack.label,
        warnings=(*warnings, *shape.warnings, *_tilt_note(shape)),
    )


def _check_units(frames: Sequence[headers.FrameHeader]) -> None:
    """Refuse a CT whose values are not HU: a model would answer, and be wrong."""
    for frame in frames:
        known = frame.has_rescale or frame.has_modality_lut or frame.signed
        if frame.modality == "CT" and not known:
            raise VolumeError("CT without rescale intercept: its values are not HU")


def _value_notes(frames: Sequence[headers.FrameHeader]) -> list[str]:
    notes = []
    if any(f.photometric == "MONOCHROME1" for f in frames):
        kept = frames[0].modality == "CT"
        notes.append("MONOCHROME1: " + ("HU kept as they are" if kept else "intensities inverted"))
    if frames[0].modality == "CT" and not all(f.has_rescale or f.has_modality_lut for f in frames):
        notes.append("CT without rescale intercept: signed values taken for HU")
    if any(f.lossy for f in frames):
        notes.append("lossy compressed images")
    return notes


def _tilt_note(shape: geometry.StackGeometry) -> tuple[str, ...]:
    if not shape.sheared:
        return ()
    step = shape.affine[:3, 0]
    normal = np.cross(shape.affine[:3, 2], shape.affine[:3, 1])
    along = abs(step @ normal) / (np.linalg.norm(normal) * np.linalg.norm(step))
    degrees = float(np.degrees(np.arccos(np.clip(along, 0, 1))))
    return (f"slices displaced in their plane (gantry tilt {degrees:.1f} degrees)",)


def _frame_of_reference(frames: tuple[headers.FrameHeader, ...]) -> str:
    uids = {f.frame_of_reference_uid for f in frames}
    return uids.pop() if len(uids) == 1 else ""

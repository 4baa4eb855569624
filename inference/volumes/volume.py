"""The values this package hands out: volumes, the frames they came from, and its limits.

Legend: K slices, R rows, C columns. Positions are DICOM patient coordinates (LPS) in mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Matrix = npt.NDArray[np.float64]

CT_AIR_HU = -1000


@dataclass(frozen=True)
class Limits:
    """What is too large or too small to read; guards against absurd and hostile headers."""

    min_slices: int = 4
    """Fewer give no token: the model's slabs are 4 slices thick."""
    max_frame_pixels: int = 4096 * 4096
    max_frames_per_file: int = 20_000
    max_voxels: int = 512 * 1024 * 1024
    """Voxels of one volume: 2048 slices of 512 x 512, 1 GiB as int16."""
    max_inflated_bytes: int = 4 * 1024**3
    max_volumes: int = 4
    """Volumes read of one series (echoes, b-values, ...), best first."""
    max_repeats: int = 8
    """More repetitions of the same stack are a dynamic series (perfusion, cine): not read."""
    max_lost_fraction: float = 0.2
    """Share of undecodable frames above which the volume is given up."""


@dataclass(frozen=True)
class FrameRef:
    """The source of one slice: instance, 1-based frame number, file."""

    sop_uid: str
    frame_number: int
    path: Path


@dataclass(frozen=True)
class Volume:
    """One stack of parallel frames in physical values, in order along its normal.

    `affine` describes the *source frames*: it is sheared for a tilted gantry, so that whatever is
    sampled at `affine @ (k, r, c, 1)` lies exactly on frame k as the scanner wrote it. Models want
    right angles and even spacing: `inference.volumes.model_grid.model_grid` gives them that.

    Attributes:
        array: [K, R, C] HU or MR intensity; uint16, int16 or int32 where the rescale is integral,
            else float32.
        affine: (k, r, c, 1) -> LPS mm; where `uniform` is False, a fit: `positions_mm` is exact.
        positions_mm: [K, 3] ImagePositionPatient of every frame.
        frames: the source of every slice, aligned with K.
        spacing_mm: between slices (median, along the normal), rows, columns.
        frame_of_reference_uid: may be empty.
        uniform: slices are evenly spaced (within 5 % of the spacing).
        sheared: frames are displaced in their plane from slice to slice (gantry tilt).
        missing_slices: slices that the gaps say were not received or could not be decoded.
        label: what tells this stack from its siblings in the series, e.g. ``b=1000``.
    """

    array: Array
    affine: Matrix
    positions_mm: Matrix
    frames: tuple[FrameRef, ...]
    spacing_mm: tuple[float, float, float]
    modality: str
    frame_of_reference_uid: str = ""
    uniform: bool = True
    sheared: bool = False
    missing_slices: int = 0
    label: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelGrid:
    """The same voxels on an orthogonal, evenly spaced grid: array [K, R, C] and its LPS affine.

    `spacing_mm` (k, r, c) is what the headers say, free of the affine's rounding.
    """

    array: Array
    affine: Matrix
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class SeriesVolumes:
    """What became of a series: its volumes, or the reason why there is none."""

    volumes: tuple[Volume, ...]
    warnings: tuple[str, ...] = ()
    skipped_reason: str = ""
    """Empty if and only if there is a volume."""
    complete: bool = True
    """False when frames that belong to a volume are missing or unreadable."""
    eligible: bool = True
    """False when the series is nothing to read (localizer, capture, dynamic series, ...)."""

    @property
    def failed(self) -> bool:
        """An eligible series that gave no volume."""
        return self.eligible and not self.volumes

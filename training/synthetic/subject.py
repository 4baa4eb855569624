"""One synthetic subject: a posed, warped head with lesions, readable at any image geometry."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from training.synthetic import pathology
from training.synthetic.anatomy import Grid
from training.synthetic.labels import HEMORRHAGES, Pathology
from training.synthetic.pathology import Blob, Crescent, Lesion, Shift


@dataclass(frozen=True)
class Subject:
    """Everything that is random about one head; built by `draw_subject`."""

    pose: npt.NDArray[np.float64]
    """[4, 4], patient RAS mm to canonical RAS mm."""
    warp: Grid
    """Displacement in mm, 3 channels, on canonical coordinates."""
    folds: Grid
    """Smooth noise that gives every brain its own sulci, 1 channel."""
    lesions: tuple[Lesion, ...]
    shift: Shift
    atrophy: float
    ventricle_mm: float
    """How far the lateral ventricles reach beyond their average wall."""
    skull_mm: float
    pathologies: frozenset[Pathology] = field(default_factory=frozenset)


def draw_subject(
    rng: np.random.Generator, pathologies: Iterable[Pathology], severity: float | None = None
) -> Subject:
    """Draw a head with these pathologies.

    `severity` is 0 (barely visible) to 1 (large); drawn per lesion with a hard tail when None.
    """
    wanted = frozenset(pathologies)
    side = float(rng.choice([-1.0, 1.0]))
    lesions = tuple(_draw_lesion(rng, kind, side, severity) for kind in sorted(wanted & _FOCAL))
    normal_wall = float(rng.uniform(-0.8, 1.2))
    wall = float(rng.uniform(3.6, 5.0) + 3.5 * _severity(rng, severity))
    atrophy = float(0.55 + 0.45 * _severity(rng, severity)) if Pathology.ATROPHY in wanted else 0.0
    return Subject(
        pose=_draw_pose(rng),
        warp=_draw_warp(rng),
        folds=_draw_folds(rng),
        lesions=lesions,
        shift=_draw_shift(rng, wanted, lesions, side, severity),
        atrophy=atrophy + float(rng.uniform(0.0, 0.18)),
        ventricle_mm=wall if Pathology.VENTRICULOMEGALY in wanted else normal_wall + 2.4 * atrophy,
        skull_mm=float(rng.uniform(5.5, 8.5)),
        pathologies=wanted,
    )


_FOCAL = HEMORRHAGES | {Pathology.INFARCT, Pathology.MASS}


def _severity(rng: np.random.Generator, severity: float | None) -> float:
    """Mostly medium; one in seven from the hard tail near zero."""
    if severity is not None:
        return severity
    return float(rng.uniform(0.0, 0.15) if rng.random() < 0.14 else rng.beta(2.0, 2.0))


def _draw_lesion(
    rng: np.random.Generator, kind: Pathology, side: float, severity: float | None
) -> Lesion:
    size = _severity(rng, severity)
    if kind in (Pathology.SUBDURAL, Pathology.EPIDURAL):
        # A second collection lies on the other side, so that the two do not merge.
        return pathology.draw_crescent(
            rng, kind, -side if kind is Pathology.EPIDURAL else side, size
        )
    if kind is Pathology.INFARCT:
        return pathology.draw_wedge(rng, float(rng.choice([-1.0, 1.0])), size)
    if kind is Pathology.SUBARACHNOID:
        return pathology.draw_spread(rng, float(rng.choice([-1.0, 1.0])), size)
    return pathology.draw_blob(rng, kind, -side if kind is Pathology.MASS else side, size)


def _draw_shift(
    rng: np.random.Generator,
    wanted: frozenset[Pathology],
    lesions: tuple[Lesion, ...],
    side: float,
    severity: float | None,
) -> Shift:
    """A shift away from the largest lesion; without the label at most 1.5 mm."""
    mm = float(rng.uniform(0.0, 1.5))
    if Pathology.MIDLINE_SHIFT in wanted:
        mm = float(5.0 + rng.uniform(0, 2) + 8.0 * _severity(rng, severity))
    away = -side
    for lesion in lesions:
        if isinstance(lesion, Crescent):
            away = -lesion.side
        elif isinstance(lesion, Blob):
            away = -math.copysign(1.0, lesion.center[0])
    return Shift(mm * away, (0.0, float(rng.uniform(-20, 15)), float(rng.uniform(8, 24))))


def _draw_pose(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Size, nod, tilt, turn and position of the head in the scanner."""
    nod, tilt, turn = np.deg2rad(rng.normal(0.0, [5.0, 3.0, 4.0]))
    rotation = _rotation(0, nod) @ _rotation(1, tilt) @ _rotation(2, turn)
    scale = np.diag(1.0 / rng.normal(1.0, 0.035, 3).clip(0.9, 1.1))
    pose = np.eye(4)
    pose[:3, :3] = scale @ rotation
    pose[:3, 3] = pose[:3, :3] @ rng.normal(0.0, [5.0, 6.0, 5.0])
    return pose


def _rotation(axis: int, angle: float) -> npt.NDArray[np.float64]:
    i, j = [n for n in range(3) if n != axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = math.cos(angle)
    matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
    return matrix


def _draw_warp(rng: np.random.Generator) -> Grid:
    knots = rng.normal(0.0, 2.1, (3, 7, 9, 8)).astype(np.float32)
    smooth = np.stack([ndimage.zoom(k, 3, order=3) for k in knots])
    return Grid(torch.from_numpy(smooth), (-98.0, -134.0, -72.0), 9.6)


def _draw_folds(rng: np.random.Generator) -> Grid:
    noise = rng.standard_normal((40, 48, 40)).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, 0.9)
    return Grid(torch.from_numpy(smooth / smooth.std())[None], (-98.0, -134.0, -72.0), 5.0)

"""Synthetic studies with known truth: `make_study` and the values it returns."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.synthetic.ct import render_ct
from training.synthetic.labels import (
    ANY_HEMORRHAGE,
    HEMORRHAGES,
    LABELS,
    Pathology,
    positive_labels,
)
from training.synthetic.mr import Contrast, render_mr
from training.synthetic.scene import Scene, view
from training.synthetic.subject import Subject, draw_subject

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SyntheticSeries:
    """One image series as a scanner would make it.

    Attributes:
        name: series description.
        modality: ``CT`` or ``MR``.
        contrast: ``CT``, ``T1``, ``T2``, ``FLAIR`` or ``DWI``.
        array: int16 [K, R, C]; Hounsfield units, or MR signal.
        affine: float64 [4, 4], (k, r, c, 1) to LPS mm.
        thickness_mm: slice thickness; the distance of slices lies in `affine`.
        masks: label id to the voxels of this series that show it. Diffuse labels have none.
    """

    name: str
    modality: str
    contrast: str
    array: npt.NDArray[np.int16]
    affine: npt.NDArray[np.float64]
    thickness_mm: float
    masks: dict[str, Mask]


@dataclass(frozen=True)
class SyntheticStudy:
    """One study: all its series show the same subject in one frame of reference."""

    seed: int
    modality: str
    series: tuple[SyntheticSeries, ...]
    labels: frozenset[str]
    pathologies: frozenset[Pathology]

    @property
    def masks(self) -> dict[str, Mask]:
        """Truth on the first series."""
        return self.series[0].masks


def make_study(
    seed: int,
    modality: str,
    pathologies: Iterable[Pathology | str] = (),
    *,
    matrix: int | None = None,
    severity: float | None = None,
) -> SyntheticStudy:
    """Make one study; the same arguments give the same voxels.

    Args:
        seed: decides anatomy, pose, lesions, contrast and noise.
        modality: ``CT`` or ``MR``.
        pathologies: what the subject has; empty for a normal study.
        matrix: rows and columns; 512 for CT and 256 for MR unless given.
        severity: 0 (barely visible) to 1 (large); drawn when None.

    Raises:
        ValueError: unknown modality or pathology.
    """
    if modality not in LABELS:
        raise ValueError(f"no synthetic studies of modality {modality!r}; use CT or MR")
    rng = np.random.default_rng([seed, *modality.encode()])
    subject = draw_subject(rng, (Pathology(p) for p in pathologies), severity)
    series: tuple[SyntheticSeries, ...]
    if modality == "CT":
        series = (_ct_series(subject, rng, matrix or 512),)
    else:
        series = _mr_series(subject, rng, matrix or 256)
    labels = positive_labels(subject.pathologies, modality)
    return SyntheticStudy(seed, modality, series, labels, subject.pathologies)


def _ct_series(subject: Subject, rng: np.random.Generator, matrix: int) -> SyntheticSeries:
    slices = int(rng.integers(33, 38))
    affine = axial_affine(
        matrix, slices, fov_mm=rng.uniform(232, 246), step_mm=5.0, center_z_mm=24.0, tilt_deg=0.0
    )
    zoom = max(1, matrix // _RENDERED)
    scene = view(subject, _coarser(affine, zoom), (slices, matrix // zoom, matrix // zoom))
    array = render_ct(subject, scene, rng, zoom)
    masks = {k: m.repeat(zoom, 1).repeat(zoom, 2) for k, m in _masks(scene, "CT").items()}
    return SyntheticSeries("HEAD WO 5.0 AXIAL", "CT", "CT", array, affine, 5.0, masks)


_RENDERED = 256


def _coarser(affine: npt.NDArray[np.float64], zoom: int) -> npt.NDArray[np.float64]:
    """The same image with `zoom` x `zoom` pixels made one."""
    coarse = affine.copy()
    coarse[:3, 1:3] *= zoom
    coarse[:3, 3] += (affine[:3, 1] + affine[:3, 2]) * (zoom - 1) / 2
    return coarse


def _mr_series(
    subject: Subject, rng: np.random.Generator, matrix: int
) -> tuple[SyntheticSeries, ...]:
    tilt_deg = float(rng.normal(0.0, 6.0))
    fov_mm, step_mm, slices = (
        rng.uniform(225, 240),
        rng.uniform(5.0, 6.0),
        int(rng.integers(24, 29)),
    )
    series = []
    # Diffusion is acquired with half the matrix; the other sequences share one geometry.
    for size, contrasts in ((matrix, _ANATOMICAL), (matrix // 2, (Contrast.DWI,))):
        affine = axial_affine(
            size, slices, fov_mm=fov_mm, step_mm=step_mm, center_z_mm=8.0, tilt_deg=tilt_deg
        )
        scene = view(subject, affine, (slices, size, size))
        masks = _masks(scene, "MR")
        for contrast in contrasts:
            array = render_mr(subject, scene, contrast, rng)
            name = _MR_NAMES[contrast]
            series.append(SyntheticSeries(name, "MR", contrast, array, affine, 5.0, masks))
    return tuple(series)


_ANATOMICAL = (Contrast.T1, Contrast.T2, Contrast.FLAIR)


_MR_NAMES = {
    Contrast.T1: "AX T1 SE",
    Contrast.T2: "AX T2 TSE",
    Contrast.FLAIR: "AX FLAIR",
    Contrast.DWI: "AX DWI b1000",
}


def axial_affine(
    matrix: int,
    slices: int,
    *,
    fov_mm: float,
    step_mm: float,
    center_z_mm: float,
    tilt_deg: float,
) -> npt.NDArray[np.float64]:
    """Geometry of an axial stack around the head: (k, r, c, 1) to LPS mm, feet to head."""
    spacing = fov_mm / matrix
    cos, sin = math.cos(math.radians(tilt_deg)), math.sin(math.radians(tilt_deg))
    column, row = np.array([1.0, 0.0, 0.0]), np.array([0.0, cos, sin])
    normal = np.cross(column, row)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = normal * step_mm, row * spacing, column * spacing
    middle = np.array([(slices - 1) / 2, (matrix - 1) / 2, (matrix - 1) / 2])
    # 17 mm behind the origin of MNI space lies the middle of the head (LPS: +y is posterior).
    affine[:3, 3] = np.array([0.0, 17.0, center_z_mm]) - affine[:3, :3] @ middle
    return affine


def _masks(scene: Scene, modality: str) -> dict[str, Mask]:
    masks: dict[str, Mask] = {}
    for kind, mask in scene.masks.items():
        whole = np.zeros(scene.shape, dtype=np.bool_)
        whole[scene.box] = mask.numpy()
        masks[LABELS[modality][kind]] = whole
    blood = [LABELS[modality][kind] for kind in scene.masks if kind in HEMORRHAGES]
    if blood:
        masks[ANY_HEMORRHAGE] = np.logical_or.reduce([masks[label] for label in blood])
    return masks

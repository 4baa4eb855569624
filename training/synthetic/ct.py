"""From a subject to Hounsfield units: tissues, blood, bone, noise and the usual artifacts."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from training.synthetic.labels import Pathology
from training.synthetic.pathology import Blob, Lesion
from training.synthetic.scene import Scene
from training.synthetic.subject import Subject

AIR, GREY, WHITE, FLUID, SCALP, FAT = -1000.0, 37.0, 29.0, 8.0, 45.0, -70.0
_TABLE, _DIPLOE = 1250.0, 520.0
_HIGHEST = 3071.0


def render_ct(
    subject: Subject, scene: Scene, rng: np.random.Generator, zoom: int = 1
) -> npt.NDArray[np.int16]:
    """Hounsfield units as a scanner stores them: int16 [K, R, C], -1024 to 3071.

    `zoom` enlarges the matrix in-plane: a scanner's point spread is about a millimeter whatever
    the matrix, so only the noise needs the fine one.
    """
    hu = torch.full(scene.shape, AIR)
    hu[scene.box] = _head(subject, scene, rng) + _artifacts(scene, rng)
    grain = torch.ones(scene.shape)
    grain[scene.box] += 0.5 * torch.exp(-(((scene.height + 40.0) / 14.0) ** 2))
    hu, grain = _enlarge(hu, zoom), _enlarge(grain, zoom)
    hu += _noise(tuple(hu.shape), rng) * grain
    return hu.round_().clamp_(-1024.0, _HIGHEST).to(torch.int16).numpy()


def _head(subject: Subject, scene: Scene, rng: np.random.Generator) -> torch.Tensor:
    grey, white, fluid = (m + rng.normal(0, 0.8) for m in (GREY, WHITE, FLUID))
    brain = scene.grey * grey + scene.white * white + scene.fluid * fluid
    within = (scene.grey + scene.white + scene.fluid).clamp(min=1e-3)
    brain = _calcify(brain / within, scene, rng)
    brain = _lesions(subject, scene, brain, (grey, white))
    hu = torch.where(scene.inner < 0, brain, _cover(subject, scene))
    return _outside(scene, hu)


def _calcify(hu: torch.Tensor, scene: Scene, rng: np.random.Generator) -> torch.Tensor:
    """Harmless dense things that a reader knows: pineal and choroid calcification, the falx."""
    for x, y, z in _CALCIFIED:
        radius_mm, value = rng.uniform(2.0, 4.0), rng.uniform(70.0, 160.0)
        if rng.random() < 0.6:
            continue
        far = (scene.lateral - x) ** 2 + (scene.forward - y) ** 2 + (scene.height - z) ** 2
        hu = torch.where(far < radius_mm**2, value, hu)
    falx = (scene.lateral.abs() < 0.9) & (scene.height > 25.0) & (scene.inner > -30.0)
    return torch.where(falx, 48.0, hu)


_CALCIFIED = ((0.0, -29.0, 5.0), (-19.0, -40.0, 14.0), (19.0, -40.0, 14.0))
"""Canonical sites in mm: pineal gland, choroid plexus of both sides."""


def _lesions(
    subject: Subject, scene: Scene, hu: torch.Tensor, tissue: tuple[float, float]
) -> torch.Tensor:
    for lesion, level in zip(subject.lesions, scene.levels, strict=True):
        hu = _lesion(lesion, level, scene, hu, tissue)
    return hu


def _lesion(
    lesion: Lesion,
    level: torch.Tensor,
    scene: Scene,
    hu: torch.Tensor,
    tissue: tuple[float, float],
) -> torch.Tensor:
    soft = torch.sigmoid(level / 0.5)
    if lesion.kind is Pathology.SUBARACHNOID:
        blood = 38.0 + 24.0 * lesion.contrast
        return hu + soft * scene.fluid.pow(0.7) * (blood - FLUID)
    if lesion.kind is Pathology.INFARCT:
        edge = torch.sigmoid(level / 2.0) * (1.0 - scene.fluid)
        drop = 5.0 + 11.0 * lesion.contrast
        # Cytotoxic edema lowers grey matter more: the border to white matter is lost first.
        swollen = torch.minimum(hu, torch.full_like(hu, tissue[1] + 2.0)) - drop
        return hu + edge * (swollen - hu)
    if isinstance(lesion, Blob):
        hu = _edema(hu, level, lesion, scene)
    if lesion.kind is Pathology.MASS:
        core = torch.sigmoid((level - 0.45 * min(_radii(lesion))) / 1.0)
        value = 41.0 + 14.0 * lesion.contrast - core * 24.0
        return hu + soft * (value - hu)
    return hu + soft * (54.0 + 20.0 * lesion.contrast - hu)


def _radii(lesion: Lesion) -> tuple[float, ...]:
    return lesion.radii_mm if isinstance(lesion, Blob) else (1.0,)


def _edema(hu: torch.Tensor, level: torch.Tensor, lesion: Blob, scene: Scene) -> torch.Tensor:
    """Water around a lesion; it spreads in white matter and spares the cortex."""
    halo = torch.sigmoid((level + lesion.halo_mm) / 1.2) * (0.25 + 0.75 * scene.white)
    return hu + halo * (1.0 - scene.fluid) * (20.0 - hu)


def _cover(subject: Subject, scene: Scene) -> torch.Tensor:
    """Skull in three layers and what covers it; under the base, muscle and bone."""
    depth = scene.inner / subject.skull_mm
    tables = 1.0 - torch.exp(-(((depth - 0.5) / 0.28) ** 4))
    bone = _DIPLOE + (_TABLE - _DIPLOE) * tables
    scalp = torch.where(scene.skin > -4.0, SCALP, FAT)
    scalp = torch.where(scene.inner > 13.0, 50.0, scalp)
    return torch.where(depth < 1.0, bone, scalp)


def _outside(scene: Scene, hu: torch.Tensor) -> torch.Tensor:
    """Air around the head, the head rest behind it, air cells in the skull base."""
    air = torch.where(scene.skin > 0, AIR, hu)
    rest = (scene.skin > 9.0) & (scene.skin < 12.0) & (scene.forward < -95.0)
    foam = (scene.skin > 1.5) & (scene.skin <= 9.0) & (scene.forward < -95.0)
    air = torch.where(rest, -80.0, torch.where(foam, -930.0, air))
    sinus = (scene.inner > 4.0) & (scene.skin < -9.0) & (scene.height < -32.0)
    sinus &= (scene.forward > 34.0) & (scene.lateral.abs() < 17.0)
    return torch.where(sinus, -950.0, air)


def _artifacts(scene: Scene, rng: np.random.Generator) -> torch.Tensor:
    """Beam hardening: brighter under the bone, a dark bar and fine streaks at the skull base."""
    inside = scene.inner < 0
    cupping = rng.uniform(2.0, 6.0) * torch.exp(scene.inner.clamp(max=0.0) / 4.0)
    base = torch.exp(-(((scene.height + 40.0) / 9.0) ** 2))
    bar = -rng.uniform(2.0, 9.0) * base * torch.exp(-(((scene.forward + 22.0) / 10.0) ** 2))
    rows = torch.linspace(-1.0, 1.0, scene.inner.shape[1])[:, None]
    columns = torch.linspace(-1.0, 1.0, scene.inner.shape[2])[None, :]
    angle = torch.atan2(rows - rng.uniform(-0.1, 0.1), columns - rng.uniform(-0.1, 0.1))
    waves = sum(
        torch.sin(float(rng.integers(7, 31)) * angle + rng.uniform(0, 2 * math.pi))
        for _ in range(3)
    )
    return torch.where(inside, cupping + bar, 0.0) + rng.uniform(0.3, 2.2) * base * waves


def _enlarge(image: torch.Tensor, zoom: int) -> torch.Tensor:
    if zoom == 1:
        return image
    return torch.nn.functional.interpolate(
        image[None], scale_factor=float(zoom), mode="bilinear", align_corners=False
    )[0]


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """Quantum noise, slightly correlated by the reconstruction kernel."""
    grain = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    noise = grain + torch.roll(grain, 1, 2)
    noise += torch.roll(grain, 1, 1)
    return noise.mul_(rng.uniform(2.5, 5.5) / math.sqrt(3.0))

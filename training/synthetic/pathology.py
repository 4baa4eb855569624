"""Lesions in canonical head coordinates: how they are drawn at random and where they lie.

Each lesion answers `level(points, inner)`: a field in about millimeters, positive inside the
lesion. Coordinates are RAS mm of the MNI space; `inner` is the signed distance to the inner table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from training.synthetic.labels import Pathology

_CENTER = torch.tensor([0.0, -17.0, 5.0])
"""About the middle of the cranial cavity."""


@dataclass(frozen=True)
class Blob:
    """An ellipsoid with an irregular edge: hematoma or tumor."""

    kind: Pathology
    center: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    turn: float
    halo_mm: float
    contrast: float
    phase: float

    def level(self, points: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
        """Distance to the irregular edge, positive inside, cut off at the inner table."""
        delta = points - torch.tensor(self.center, dtype=torch.float32)
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        a = (cos * delta[..., 0] + sin * delta[..., 1]) / self.radii_mm[0]
        b = (cos * delta[..., 1] - sin * delta[..., 0]) / self.radii_mm[1]
        c = delta[..., 2] / self.radii_mm[2]
        wave = torch.sin(2.3 * a + self.phase) * torch.sin(
            3.7 * b - 1.7 * self.phase
        ) + 0.5 * torch.sin(4.3 * c + 2.0 * self.phase + 2.0 * a)
        rho = torch.sqrt(a * a + b * b + c * c) * (1.0 + 0.10 * wave)
        return torch.minimum((1.0 - rho) * min(self.radii_mm), -inner - 2.0)


@dataclass(frozen=True)
class Crescent:
    """Blood along the inner table: wide and thin (subdural) or short and thick (epidural)."""

    kind: Pathology
    side: float
    azimuth: float
    elevation: float
    azimuth_reach: float
    elevation_reach: float
    thickness_mm: float
    contrast: float
    power: float
    """Edge of the profile: 2 is a lens, 6 an even crescent."""

    def level(self, points: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
        """Thickness of the collection here minus depth beneath the inner table."""
        delta = points - _CENTER
        lateral = self.side * delta[..., 0]
        azimuth = torch.atan2(delta[..., 1], lateral.clamp(min=1.0))
        radius = torch.linalg.vector_norm(delta, dim=-1).clamp(min=1.0)
        elevation = torch.asin((delta[..., 2] / radius).clamp(-1.0, 1.0))
        u = ((azimuth - self.azimuth) / self.azimuth_reach).abs()
        v = ((elevation - self.elevation) / self.elevation_reach).abs()
        profile = 1.0 - (u * u + v * v).pow(self.power / 2.0)
        level = self.thickness_mm * profile.clamp(min=-1.0) + inner
        return torch.minimum(torch.minimum(level, -inner), lateral - 4.0)


@dataclass(frozen=True)
class Wedge:
    """A vascular territory: a cone from the deep white matter to the cortex of one side."""

    kind: Pathology
    side: float
    apex: tuple[float, float, float]
    azimuth: float
    elevation: float
    half_angle: float
    contrast: float
    phase: float

    def level(self, points: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
        """Distance to the mantle of the cone, positive inside."""
        delta = points - torch.tensor(self.apex, dtype=torch.float32)
        radius = torch.linalg.vector_norm(delta, dim=-1).clamp(min=1.0)
        flat = math.cos(self.elevation)
        axis = torch.tensor(
            [
                self.side * math.cos(self.azimuth) * flat,
                math.sin(self.azimuth) * flat,
                math.sin(self.elevation),
            ],
            dtype=torch.float32,
        )
        angle = torch.acos((delta @ axis / radius).clamp(-1.0, 1.0))
        wave = 0.12 * torch.sin(0.21 * points[..., 1] + self.phase)
        level = (self.half_angle * (1.0 + wave) - angle) * radius
        return torch.minimum(torch.minimum(level, -inner - 1.0), self.side * points[..., 0] - 1.0)


@dataclass(frozen=True)
class Spread:
    """Subarachnoid blood: a region within which fluid spaces are dense."""

    kind: Pathology
    center: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    contrast: float

    def level(self, points: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
        """Distance to the edge of the region, positive inside."""
        delta = (points - torch.tensor(self.center, dtype=torch.float32)) / torch.tensor(
            self.radii_mm, dtype=torch.float32
        )
        rho = torch.linalg.vector_norm(delta, dim=-1)
        return torch.minimum((1.0 - rho) * min(self.radii_mm), -inner + 1.0)


Lesion = Blob | Crescent | Wedge | Spread


@dataclass(frozen=True)
class Shift:
    """Displacement of the midline: `mm` towards +x (patient right to left) or -x."""

    mm: float
    center: tuple[float, float, float]


def draw_blob(rng: np.random.Generator, kind: Pathology, side: float, severity: float) -> Blob:
    """A hematoma or tumor of one hemisphere, deep or lobar, rarely in the cerebellum."""
    x, y, z = _BLOB_SITES[int(rng.integers(len(_BLOB_SITES)))]
    center = (side * (x + rng.normal(0, 3)), y + rng.normal(0, 6), z + rng.normal(0, 5))
    low, high = (7.0, 24.0) if kind is Pathology.INTRAPARENCHYMAL else (9.0, 24.0)
    radius = low + (high - low) * severity
    spread = rng.uniform(0.8, 1.25, 3)
    return Blob(
        kind=kind,
        center=center,
        radii_mm=(radius * spread[0], radius * spread[1], radius * spread[2]),
        turn=rng.uniform(0, math.pi),
        halo_mm=rng.uniform(1.5, 5.0) if kind is Pathology.INTRAPARENCHYMAL else rng.uniform(5, 15),
        contrast=rng.uniform(0.3, 1.0),
        phase=rng.uniform(0, 2 * math.pi),
    )


def draw_crescent(
    rng: np.random.Generator, kind: Pathology, side: float, severity: float
) -> Crescent:
    """A subdural crescent or an epidural lens."""
    if kind is Pathology.SUBDURAL:
        return Crescent(
            kind=kind,
            side=side,
            azimuth=rng.uniform(-0.2, 0.3),
            elevation=rng.uniform(0.15, 0.45),
            azimuth_reach=rng.uniform(0.9, 1.25),
            elevation_reach=rng.uniform(0.55, 0.8),
            thickness_mm=6.0 + 12.0 * severity,
            contrast=rng.uniform(0.2, 1.0),
            power=rng.uniform(4.0, 7.0),
        )
    reach = rng.uniform(0.36, 0.46) + 0.1 * severity
    return Crescent(
        kind=kind,
        side=side,
        azimuth=rng.uniform(-0.8, 0.8),
        elevation=rng.uniform(-0.05, 0.55),
        azimuth_reach=reach,
        elevation_reach=reach,
        thickness_mm=14.0 + 18.0 * severity,
        contrast=rng.uniform(0.3, 1.0),
        power=2.0,
    )


def draw_wedge(rng: np.random.Generator, side: float, severity: float) -> Wedge:
    """An infarct in the territory of the middle, anterior or posterior cerebral artery."""
    azimuth, elevation, spread = _TERRITORIES[int(rng.choice(3, p=[0.64, 0.14, 0.22]))]
    return Wedge(
        kind=Pathology.INFARCT,
        side=side,
        apex=(side * rng.uniform(16, 24), rng.uniform(-14, 2), rng.uniform(6, 16)),
        azimuth=azimuth + rng.normal(0, spread),
        elevation=elevation + rng.normal(0, 0.2),
        half_angle=0.36 + 0.4 * severity,
        contrast=rng.uniform(0.25, 1.0),
        phase=rng.uniform(0, 2 * math.pi),
    )


def draw_spread(rng: np.random.Generator, side: float, severity: float) -> Spread:
    """Subarachnoid blood in the basal cisterns, one Sylvian fissure or over the convexity."""
    center = (
        (0.0, 0.0, -18.0),
        (side * 42.0, 2.0, 2.0),
        (side * 38.0, float(rng.uniform(-45, 30)), 48.0),
    )[int(rng.integers(3))]
    radius = 26.0 + 26.0 * severity
    spread = rng.uniform(0.9, 1.3, 3)
    return Spread(
        kind=Pathology.SUBARACHNOID,
        center=center,
        radii_mm=(radius * spread[0], radius * spread[1], radius * spread[2]),
        contrast=rng.uniform(0.35, 1.0),
    )


# Right hemisphere: basal ganglia, thalamus, frontal, parietal, temporal, occipital, cerebellum.
_BLOB_SITES = (
    (26.0, 2.0, 4.0),
    (16.0, -18.0, 8.0),
    (30.0, 34.0, 22.0),
    (34.0, -38.0, 38.0),
    (46.0, -16.0, -10.0),
    (28.0, -70.0, 14.0),
    (26.0, -62.0, -34.0),
)
# (azimuth from lateral, elevation, spread of the azimuth) of middle, anterior, posterior territory.
_TERRITORIES = ((0.0, 0.15, 0.35), (1.15, 0.5, 0.1), (-1.15, 0.0, 0.1))

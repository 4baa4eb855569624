"""From a subject to MR signal: four contrasts, receive-coil bias and Rician noise."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from training.synthetic.labels import Pathology
from training.synthetic.pathology import Blob, Lesion
from training.synthetic.scene import Scene
from training.synthetic.subject import Subject


class Contrast(enum.StrEnum):
    """One MR sequence of the synthetic protocol."""

    T1 = "T1"
    T2 = "T2"
    FLAIR = "FLAIR"
    DWI = "DWI"


# Relative signal; white matter of each sequence is the yardstick a reader would use.
#                        grey white fluid blood tumor core edema infarct fat  marrow
_SIGNAL: dict[Contrast, tuple[float, ...]] = {
    Contrast.T1: (0.62, 0.82, 0.22, 0.95, 0.48, 0.28, 0.50, 0.54, 1.00, 0.55),
    Contrast.T2: (0.56, 0.40, 1.00, 0.24, 0.74, 0.95, 0.80, 0.74, 0.75, 0.40),
    Contrast.FLAIR: (0.58, 0.48, 0.12, 0.86, 0.80, 0.34, 0.88, 0.86, 0.75, 0.40),
    Contrast.DWI: (0.42, 0.36, 0.14, 0.22, 0.52, 0.30, 0.46, 1.00, 0.12, 0.12),
}
_GREY, _WHITE, _FLUID, _BLOOD, _TUMOR, _CORE, _EDEMA, _INFARCT, _FAT, _MARROW = range(10)
_CORTICAL_BONE = 0.09
_MUSCLE = 0.33


@dataclass(frozen=True)
class _Palette:
    """The signals of one series: its contrast and the row of `_SIGNAL` as drawn for it."""

    contrast: Contrast
    table: list[float]


def render_mr(
    subject: Subject, scene: Scene, contrast: Contrast, rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    """Signal as a scanner stores it: int16 [K, R, C], 0 to 4095."""
    table = [value * float(rng.normal(1.0, 0.04)) for value in _SIGNAL[contrast]]
    noise = rng.uniform(0.010, 0.022)
    real, imaginary = _white(scene, rng) * noise, _white(scene, rng) * noise
    real[scene.box] += _head(subject, scene, _Palette(contrast, table)) * _bias(scene, rng)
    magnitude = torch.hypot(real, imaginary) * rng.uniform(500.0, 1800.0)
    return magnitude.round_().clamp_(0.0, 4095.0).to(torch.int16).numpy()


def _head(subject: Subject, scene: Scene, palette: _Palette) -> torch.Tensor:
    table = palette.table
    within = (scene.grey + scene.white + scene.fluid).clamp(min=1e-3)
    brain = (
        scene.grey * table[_GREY] + scene.white * table[_WHITE] + scene.fluid * table[_FLUID]
    ) / within
    for lesion, level in zip(subject.lesions, scene.levels, strict=True):
        brain = _lesion(lesion, level, scene, brain, palette)
    signal = torch.where(scene.inner < 0, brain, _cover(subject, scene, table))
    return torch.where(scene.skin > 0, 0.0, signal)


def _lesion(
    lesion: Lesion,
    level: torch.Tensor,
    scene: Scene,
    signal: torch.Tensor,
    palette: _Palette,
) -> torch.Tensor:
    contrast, table = palette.contrast, palette.table
    soft = torch.sigmoid(level / 0.5)
    if lesion.kind is Pathology.SUBARACHNOID:
        fluid = soft * scene.fluid.pow(0.7) * (0.4 + 0.6 * lesion.contrast)
        return signal + fluid * (_extra_axial(contrast) - signal)
    if lesion.kind is Pathology.INFARCT:
        edge = torch.sigmoid(level / 2.0) * (1.0 - scene.fluid) * (0.35 + 0.65 * lesion.contrast)
        return signal + edge * (table[_INFARCT] - signal)
    if not isinstance(lesion, Blob):
        return signal + soft * (_extra_axial(contrast) - signal)
    halo = torch.sigmoid((level + lesion.halo_mm) / 1.2) * (0.25 + 0.75 * scene.white)
    signal = signal + halo * (1.0 - scene.fluid) * (table[_EDEMA] - signal)
    if lesion.kind is Pathology.MASS:
        core = torch.sigmoid((level - 0.45 * min(lesion.radii_mm)) / 1.0)
        value = table[_TUMOR] + core * (table[_CORE] - table[_TUMOR])
        return signal + soft * (value - signal)
    # A hematoma: rim and center differ as its hemoglobin ages from the edge.
    rim = torch.sigmoid((3.0 - level) / 0.8)
    value = table[_BLOOD] + rim * 0.35 * (table[_EDEMA] - table[_BLOOD])
    return signal + soft * (value - signal)


def _extra_axial(contrast: Contrast) -> float:
    """Blood outside the brain, early subacute: bright on all but diffusion."""
    return {Contrast.T1: 0.90, Contrast.T2: 0.72, Contrast.FLAIR: 0.92, Contrast.DWI: 0.55}[
        contrast
    ]


def _cover(subject: Subject, scene: Scene, table: list[float]) -> torch.Tensor:
    depth = scene.inner / subject.skull_mm
    marrow = torch.exp(-(((depth - 0.5) / 0.28) ** 4))
    bone = _CORTICAL_BONE + (table[_MARROW] - _CORTICAL_BONE) * marrow
    scalp = torch.where(scene.skin > -3.0, _MUSCLE, table[_FAT])
    scalp = torch.where(scene.inner > 13.0, _MUSCLE, scalp)
    return torch.where(depth < 1.0, bone, scalp)


def _bias(scene: Scene, rng: np.random.Generator) -> torch.Tensor:
    """Smooth multiplicative shading of the receive coils, about +-20 %."""
    knots = rng.normal(0.0, 0.10, (4, 4, 4)).astype(np.float32)
    smooth = torch.from_numpy(ndimage.zoom(knots, 3, order=3))
    size = tuple(scene.inner.shape)
    field = torch.nn.functional.interpolate(
        smooth[None, None], size=size, mode="trilinear", align_corners=True
    )[0, 0]
    return torch.exp(field)


def _white(scene: Scene, rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(scene.shape, dtype=np.float32))

"""A subject read at one image geometry: tissue fractions, distances, lesions and their masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from training.synthetic.anatomy import Grid, canonical_head
from training.synthetic.labels import Pathology
from training.synthetic.pathology import Blob, Shift
from training.synthetic.subject import Subject

_FIELD_SPACING_MM = 2.0
"""In-plane sampling of smooth fields; they are interpolated to the image matrix afterwards."""
_SHIFT_MASK_MM = 3.0

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Scene:
    """A subject read at one image geometry; every tensor is float32 over `box` of the image."""

    shape: tuple[int, int, int]
    box: Box
    """Part of the image that holds the head; all around is air."""
    grey: torch.Tensor
    white: torch.Tensor
    fluid: torch.Tensor
    inner: torch.Tensor
    """Signed distance to the inner table in mm, negative inside."""
    skin: torch.Tensor
    height: torch.Tensor
    """Canonical z in mm: tells the skull base from the vault."""
    forward: torch.Tensor
    lateral: torch.Tensor
    levels: tuple[torch.Tensor, ...]
    """One field per lesion of the subject, positive inside."""
    masks: dict[Pathology, torch.Tensor]


def view(subject: Subject, affine: npt.NDArray[np.float64], shape: tuple[int, int, int]) -> Scene:
    """Read the subject at an image geometry: `affine` maps (k, r, c, 1) to LPS mm."""
    anatomy = canonical_head()
    spacing = float(np.linalg.norm(affine[:3, 2]))
    step = max(1, round(_FIELD_SPACING_MM / spacing))
    points = _canonical_points(subject, affine, shape, step)
    points = points + subject.warp.sample(points).permute(1, 2, 3, 0)
    shells = anatomy.shells.sample(points)
    levels = [lesion.level(points, shells[0]) for lesion in subject.lesions]
    shift = _shift_field(subject.shift, points, shells[0])
    pushed = _push(subject, points, shells[0], shift)
    ventricles = anatomy.ventricles.sample(pushed)[0]
    box = _head_box(shells[1], step)
    coarse = torch.stack(
        [
            *pushed.unbind(-1),
            shells[0],
            shells[1],
            ventricles,
            subject.folds.sample(points)[0],
            shift.abs() - _SHIFT_MASK_MM,
            9.0 - pushed[..., 0].abs(),
            *levels,
        ]
    )
    return _scene(subject, anatomy.tissue, _refine(coarse, box, step), shape, box)


def _canonical_points(
    subject: Subject, affine: npt.NDArray[np.float64], shape: tuple[int, int, int], step: int
) -> torch.Tensor:
    """Canonical RAS coordinates [K, R/step, C/step, 3] of the centers of step x step pixels."""
    to_canonical = subject.pose @ np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    k = torch.arange(shape[0], dtype=torch.float32)
    r = torch.arange(shape[1] // step, dtype=torch.float32) * step + (step - 1) / 2
    c = torch.arange(shape[2] // step, dtype=torch.float32) * step + (step - 1) / 2
    m = torch.from_numpy(to_canonical.astype(np.float32))
    return (
        k[:, None, None, None] * m[:3, 0]
        + r[None, :, None, None] * m[:3, 1]
        + c[None, None, :, None] * m[:3, 2]
        + m[:3, 3]
    )


def _shift_field(shift: Shift, points: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """Displacement along x in mm: largest at the septum, zero at the inner table."""
    delta = (points - torch.tensor(shift.center)) / torch.tensor([38.0, 48.0, 32.0])
    tethered = (-inner / 22.0).clamp(0.0, 1.0)
    return shift.mm * torch.exp(-(delta * delta).sum(-1)) * tethered


def _push(
    subject: Subject, points: torch.Tensor, inner: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """Where the tissue seen at `points` came from: mass effect, midline shift, shrinkage."""
    source = points.clone()
    source[..., 0] -= shift
    for lesion in subject.lesions:
        if not isinstance(lesion, Blob):
            continue
        center = torch.tensor(lesion.center, dtype=torch.float32)
        delta = source - center
        rho = torch.linalg.vector_norm(delta, dim=-1).clamp(min=0.5)
        grown = 0.75 * float(np.prod(lesion.radii_mm)) ** (1.0 / 3.0)
        came_from = (rho**3 - grown**3).clamp(min=0.0) ** (1.0 / 3.0)
        near = torch.exp(-((rho / 45.0) ** 2)) * (-inner / 12.0).clamp(0.0, 1.0)
        source = source + delta * ((came_from / rho - 1.0) * near)[..., None]
    # A shrunken brain: what is seen at a depth lay further out before.
    shrink = 1.0 + 0.08 * subject.atrophy * (inner < 6.0)
    return (source - _MIDDLE) * shrink[..., None] + _MIDDLE


_MIDDLE = torch.tensor([0.0, -17.0, 0.0])


def _head_box(skin: torch.Tensor, step: int) -> Box:
    """The image region within 14 mm of the skin, in whole coarse cells."""
    near = skin < 14.0
    edges = []
    for axis, size in ((0, 1), (1, step), (2, step)):
        others = tuple(a for a in range(3) if a != axis)
        hits = torch.nonzero(near.amax(others))
        edges.append(slice(int(hits.min()) * size, (int(hits.max()) + 1) * size))
    return edges[0], edges[1], edges[2]


def _refine(coarse: torch.Tensor, box: Box, step: int) -> torch.Tensor:
    """Interpolate [F, K, r, c] fields in-plane to the image matrix within `box`."""
    k, r, c = box
    part = coarse[:, k, r.start // step : r.stop // step, c.start // step : c.stop // step]
    if step == 1:
        return part
    return torch.nn.functional.interpolate(
        part, scale_factor=float(step), mode="bilinear", align_corners=False
    )


def _scene(
    subject: Subject, tissue: Grid, fine: torch.Tensor, shape: tuple[int, int, int], box: Box
) -> Scene:
    source = fine[0:3].permute(1, 2, 3, 0)
    inner, skin, ventricles, folds, shifted, midline = fine[3:9]
    grey, white = tissue.sample(source)
    within = torch.sigmoid(-inner / 0.6)
    brain = grey + white
    bias = 0.02 - 0.42 * subject.atrophy
    edge = (0.52 - brain + 0.05 * folds - bias) / 0.11
    fluid = torch.sigmoid(edge)
    wall = torch.sigmoid((subject.ventricle_mm - ventricles) / 0.6)
    fluid = torch.maximum(fluid, wall)
    is_white = torch.sigmoid((white / brain.clamp(min=0.05) - 0.5) / 0.13)
    levels = tuple(fine[9:])
    solid = (1.0 - fluid) * within
    scene = Scene(
        shape=shape,
        box=box,
        grey=solid * (1.0 - is_white),
        white=solid * is_white,
        fluid=fluid * within,
        inner=inner,
        skin=skin,
        height=source[..., 2],
        forward=source[..., 1],
        lateral=source[..., 0],
        levels=levels,
        masks={},
    )
    inside = inner < -0.5
    masks = _lesion_masks(subject, scene)
    if Pathology.MIDLINE_SHIFT in subject.pathologies:
        masks[Pathology.MIDLINE_SHIFT] = (shifted > 0) & (midline > 0) & inside
    if Pathology.VENTRICULOMEGALY in subject.pathologies:
        masks[Pathology.VENTRICULOMEGALY] = (wall > 0.5) & inside
    scene.masks.update(masks)
    return scene


def _lesion_masks(subject: Subject, scene: Scene) -> dict[Pathology, torch.Tensor]:
    masks = {}
    for lesion, level in zip(subject.lesions, scene.levels, strict=True):
        mask = (level > 0) & (scene.inner < 0)
        if lesion.kind is Pathology.SUBARACHNOID:
            mask &= scene.fluid > 0.4
        if lesion.kind is Pathology.INFARCT:
            mask &= scene.fluid < 0.5
        masks[lesion.kind] = mask
    return masks

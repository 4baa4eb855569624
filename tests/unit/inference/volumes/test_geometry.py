"""The geometry of any parallel stack is recovered from its headers alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.volumes import geometry, stacks
from inference.volumes.headers import FrameHeader

ANGLES = st.floats(-np.pi, np.pi)
MILLIMETERS = st.floats(0.3, 12)


def rotation(a: float, b: float, c: float) -> np.ndarray:
    """A rotation from three angles."""
    around_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    around_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    around_x = np.array([[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]])
    return around_z @ around_y @ around_x


@settings(max_examples=60, deadline=None)
@given(
    angles=st.tuples(ANGLES, ANGLES, ANGLES),
    spacing=st.tuples(MILLIMETERS, MILLIMETERS, MILLIMETERS),
    count=st.integers(4, 40),
    tilt=st.floats(-0.5, 0.5),
    start=st.tuples(*[st.floats(-500, 500)] * 3),
    order=st.randoms(use_true_random=False),
)
def test_the_affine_is_found_for_any_stack(
    angles: tuple[float, float, float],
    spacing: tuple[float, float, float],
    count: int,
    tilt: float,
    start: tuple[float, float, float],
    order: object,
):
    """Any rotation, spacing, tilt and order of files, with directions as 8-digit texts."""
    turn = rotation(*angles)
    row, col = np.round(turn[:, 0], 8), np.round(turn[:, 1], 8)
    step = np.cross(turn[:, 0], turn[:, 1]) * spacing[0] + turn[:, 1] * spacing[0] * np.tan(tilt)
    frames = [
        FrameHeader(
            path=Path("x"),
            sop_uid=str(k),
            sop_class_uid="",
            frame_number=1,
            frames_in_file=1,
            modality="CT",
            rows=8,
            columns=8,
            samples=1,
            photometric="MONOCHROME2",
            bits_stored=16,
            signed=False,
            position=tuple(np.asarray(start) + k * step),
            orientation=(*row, *col),
            pixel_spacing=(spacing[1], spacing[2]),
        )
        for k in range(count)
    ]
    order.shuffle(frames)  # type: ignore[attr-defined]
    (stack,) = stacks.split(frames)
    found = geometry.fit(stack.frames)
    assert [stack.frames[i].sop_uid for i in found.order] == [str(k) for k in range(count)]
    expected = np.stack([step, turn[:, 1] * spacing[1], turn[:, 0] * spacing[2], start], axis=1)
    np.testing.assert_allclose(found.affine[:3], expected, atol=1e-5)
    np.testing.assert_allclose(found.spacing_mm, spacing, atol=1e-5)
    assert found.uniform
    assert found.missing_slices == 0
    assert np.linalg.det(found.affine[:3, :3]) != 0

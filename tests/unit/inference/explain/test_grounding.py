"""Token weights become a place in one source series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from factories import dicom

from inference.explain import grounding
from inference.volumes import FrameRef

SHAPE = (20, 64, 64)


def span(uid: str, starts: tuple[int, ...], coords: list[list[int]]):
    """A volume of 5 x 4 x 4 tokens of 20 x 48 x 48 mm whose tokens stand at `starts`."""
    affine = dicom.series_affine(*SHAPE, (5.0, 3.0, 3.0))
    source = grounding.Source(
        series_uid=uid,
        affine=affine,
        positions_mm=affine[:3, 3] + np.arange(20)[:, None] * affine[:3, 0],
        shape=SHAPE,
        frames=tuple(FrameRef(f"{uid}.{k}", k + 1, Path("x")) for k in range(20)),
    )
    grid = dicom.series_affine(5, 4, 4, (20.0, 48.0, 48.0))
    return grounding.TokenSpan(source, np.array(coords), (5, 4, 4), grid, starts)


def test_evidence_is_attention_times_positive_logit():
    """Tokens that speak against the label do not count, however attended."""
    attention = np.array([0.5, 0.3, 0.2], np.float32)
    logits = np.array([-4.0, 1.0, 2.0], np.float32)
    np.testing.assert_allclose(grounding.evidence(attention, logits), [0, 0.3, 0.4])
    np.testing.assert_allclose(grounding.evidence(attention, logits, -1.0), [2.0, 0, 0])


def test_evidence_falls_back_to_attention():
    """Without token logits, or with none in favor, attention is all there is."""
    attention = np.array([0.5, 0.5], np.float32)
    assert grounding.evidence(attention, None) is attention
    assert grounding.evidence(attention, np.array([-1.0, -2.0], np.float32)) is attention


def test_the_windows_of_a_ct_are_summed():
    """Three windows of one token add up; the map is 1 at its strongest token."""
    weights = np.array([0.1, 0.2, 0.3, 0.0, 0.2, 0.1], np.float32)
    place = grounding.ground(weights, [span("1.2", (0, 2, 4), [[1, 0, 0], [3, 2, 1]])], 0.4)
    assert place is not None
    assert place.saliency[1, 0, 0] == 1.0
    assert place.saliency[3, 2, 1] == 0.5
    assert np.count_nonzero(place.saliency) == 2
    assert place.threshold == 0.4


def test_the_volume_with_most_weight_is_chosen():
    """One strong token does not beat a volume that holds more weight in all."""
    spans = [span("1.1", (0,), [[0, 0, 0]]), span("1.2", (1,), [[1, 1, 1], [1, 1, 2]])]
    place = grounding.ground(np.array([0.4, 0.3, 0.3], np.float32), spans, 0.5)
    assert place is not None
    assert place.series_uid == "1.2"


def test_the_key_image_shows_the_strongest_token():
    """Token layer 3 covers slices 12 to 15: the key image is one of them, with its frame."""
    place = grounding.ground(np.array([1.0], np.float32), [span("1.2", (0,), [[3, 2, 1]])], 0.5)
    assert place is not None
    assert place.key_sop_uid in {"1.2.13", "1.2.14"}
    assert place.key_frame == int(place.key_sop_uid.rsplit(".", 1)[1]) + 1


def test_no_weight_is_no_place():
    """Zero, missing or broken weights ground nothing."""
    one = [span("1.2", (0,), [[0, 0, 0]])]
    assert grounding.ground(np.array([0.0], np.float32), one, 0.5) is None
    assert grounding.ground(np.array([np.nan], np.float32), one, 0.5) is None
    assert grounding.ground(np.array([], np.float32), [], 0.5) is None

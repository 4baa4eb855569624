"""Promises of the synthetic study generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from training.synthetic.labels import ANY_HEMORRHAGE, Pathology, label_ids
from training.synthetic.study import SyntheticStudy, make_study

Maker = Callable[..., SyntheticStudy]

FOCAL_CT = [
    ("intraparenchymal", "intraparenchymal_hemorrhage"),
    ("subdural", "acute_subdural_hematoma"),
    ("epidural", "epidural_hematoma"),
    ("subarachnoid", "traumatic_subarachnoid_hemorrhage"),
    ("infarct", "acute_ischemic_stroke"),
    ("mass", "intra_axial_brain_tumor"),
    ("ventriculomegaly", "ventriculomegaly"),
]


def test_same_seed_gives_the_same_voxels_and_masks() -> None:
    """A study is a function of its arguments."""
    first, second = (make_study(3, "CT", ["mass"], matrix=64) for _ in range(2))

    assert np.array_equal(first.series[0].array, second.series[0].array)
    assert np.array_equal(first.series[0].affine, second.series[0].affine)
    assert all(np.array_equal(first.masks[k], second.masks[k]) for k in first.masks)


def test_another_seed_gives_another_anatomy() -> None:
    """Held-out seeds are held-out heads."""
    first, second = (make_study(seed, "CT", matrix=64).series[0].array for seed in (3, 4))

    assert first.shape != second.shape or np.mean(first != second) > 0.2


def test_a_normal_study_has_no_label_and_no_mask(study: Maker) -> None:
    """Nothing is true of a normal study."""
    for modality in ("CT", "MR"):
        normal = study(modality)

        assert normal.labels == frozenset()
        assert normal.masks == {}


@pytest.mark.parametrize(("pathology", "label"), FOCAL_CT)
def test_every_focal_pathology_has_a_mask_inside_the_head(
    study: Maker, pathology: str, label: str
) -> None:
    """The mask of a lesion is not empty and never lies in air."""
    made = study("CT", pathology)
    series = made.series[0]

    assert label in made.labels
    assert made.masks[label].sum() > 20
    assert series.array[made.masks[label]].min() > -200


def test_hemorrhages_also_carry_the_parent_label(study: Maker) -> None:
    """Intracranial hemorrhage is the union of its kinds."""
    made = study("CT", "subdural", "intraparenchymal")
    union = made.masks["acute_subdural_hematoma"] | made.masks["intraparenchymal_hemorrhage"]

    assert ANY_HEMORRHAGE in made.labels
    assert np.array_equal(made.masks[ANY_HEMORRHAGE], union)


@pytest.mark.parametrize(
    ("pathology", "label", "low", "high"),
    [
        ("intraparenchymal", "intraparenchymal_hemorrhage", 50, 80),
        ("subdural", "acute_subdural_hematoma", 50, 80),
        ("epidural", "epidural_hematoma", 50, 80),
        ("infarct", "acute_ischemic_stroke", 8, 30),
        ("ventriculomegaly", "ventriculomegaly", 0, 20),
    ],
)
def test_lesions_have_their_hounsfield_range(
    study: Maker, pathology: str, label: str, low: float, high: float
) -> None:
    """Blood is dense, infarcts and fluid are not."""
    made = study("CT", pathology)

    assert low <= np.median(made.series[0].array[made.masks[label]]) <= high


def test_ct_holds_air_brain_and_bone(study: Maker) -> None:
    """A head CT has the Hounsfield peaks of a head CT."""
    array = study("CT").series[0].array

    assert array.dtype == np.int16
    assert array.min() >= -1024
    assert 0.3 < np.mean(array < -900) < 0.85
    assert 0.05 < np.mean((array > 15) & (array < 55)) < 0.5
    assert 0.01 < np.mean(array > 400) < 0.2


def test_infarct_is_bright_on_diffusion(study: Maker) -> None:
    """Every series of an MR study shows the same lesion at its own geometry."""
    made = study("MR", "infarct")
    diffusion = next(s for s in made.series if s.contrast == "DWI")
    inside = diffusion.masks["acute_ischemic_stroke"]

    assert inside.shape == diffusion.array.shape
    assert np.median(diffusion.array[inside]) > 1.4 * np.median(
        diffusion.array[diffusion.array > np.percentile(diffusion.array, 70)]
    )


def test_masks_of_an_mr_study_lie_at_one_place_in_the_patient(study: Maker) -> None:
    """Series differ in matrix, not in where the lesion is."""
    made = study("MR", "mass")
    centers = []
    for series in made.series:
        voxels = np.argwhere(series.masks["brain_tumor"])
        centers.append(series.affine[:3, :3] @ voxels.mean(axis=0) + series.affine[:3, 3])

    assert np.ptp(np.stack(centers), axis=0).max() < 2.0


def test_midline_shift_moves_the_middle_away_from_the_lesion(study: Maker) -> None:
    """The label is more than a name: the ventricles lie elsewhere than without the shift."""
    plain = study("CT", "ventriculomegaly", "mass", seed=21)
    shifted = study("CT", "ventriculomegaly", "mass", "midline_shift", seed=21)

    assert "midline_shift" in shifted.labels - plain.labels
    assert shifted.masks["midline_shift"].any()


def test_diffuse_atrophy_has_a_label_but_no_mask(study: Maker) -> None:
    """Atrophy is everywhere, so it cannot be pointed at."""
    made = study("CT", "atrophy")

    assert made.labels == {"cerebral_atrophy"}
    assert "cerebral_atrophy" not in made.masks


def test_a_large_matrix_shows_the_same_geometry() -> None:
    """512 pixels cover the same field as 256, not another place."""
    small, large = (make_study(5, "CT", ["epidural"], matrix=m, severity=0.7) for m in (256, 512))
    centers = [
        s.series[0].affine[:3, :3] @ np.argwhere(s.masks["epidural_hematoma"]).mean(axis=0)
        + s.series[0].affine[:3, 3]
        for s in (small, large)
    ]

    assert large.series[0].array.shape[1:] == (512, 512)
    assert np.abs(centers[0] - centers[1]).max() < 0.5


def test_unknown_modality_and_pathology_are_refused() -> None:
    """Misspelt requests do not give normal studies."""
    with pytest.raises(ValueError, match="PT"):
        make_study(1, "PT")
    with pytest.raises(ValueError, match="flu"):
        make_study(1, "CT", ["flu"])


def test_labels_are_those_of_the_published_heads() -> None:
    """Ten labels a modality, in alphabetical order, one for every pathology and the parent."""
    for modality in ("CT", "MR"):
        labels = label_ids(modality)

        assert list(labels) == sorted(labels)
        assert len(labels) == len(Pathology) + 1

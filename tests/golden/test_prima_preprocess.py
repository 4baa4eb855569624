"""Prima's preprocessing of DICOM directories against the reference's own numbers."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from factories import golden

from inference.prima import filtering, names, selection, volumes
from inference.prima.patches import make_patches
from inference.prima.preparation import prepare, prepare_official
from inference.prima.series import PrimaSeries, PrimaStudy
from inference.study import SeriesInput, StudyInput

CASE = "p1_prima_preprocess"
META = golden.meta(CASE)
STUDY = golden.case(CASE) / "study_SYN001"
NUMBERS = range(len(META["series"]))
AGAINST_THE_NORMAL = ("5_reversed_names", "10_sag")
"""Series whose file names run against the normal of their slices."""
EDGE = 4
"""Voxels from the border that up-sampling may have filled."""
DIRECTORIES = [facts["dir"] for facts in META["series"]]


@pytest.fixture(scope="module")
def study() -> PrimaStudy:
    """The golden study by the official rules, read once."""
    return prepare_official(STUDY)


def expected(number: int) -> dict[str, Any]:
    """The reference's arrays of a series."""
    return golden.arrays(golden.case(CASE) / f"series_{number}_{DIRECTORIES[number]}.npz")


def sha256(array: Any) -> str:
    """Hash of an array's bytes, as the case states it."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_series_come_in_the_references_order_with_its_names(study: PrimaStudy):
    """Natural order of directories; names from description, protocol and UID."""
    assert [series.name for series in study.series] == META["load_mri_study"]["series_names"]


def test_what_is_no_series_is_skipped_with_its_reason(study: PrimaStudy):
    """A directory without images and a loose file: the study goes on, both are told."""
    assert {item.series for item in study.skipped} == {"6_empty", "DICOMDIR.txt"}
    assert all(item.reason for item in study.skipped)


@pytest.mark.parametrize("number", NUMBERS, ids=DIRECTORIES)
def test_files_are_read_in_the_references_order(number: int):
    """Only the most common size, in natural order of the names."""
    facts = META["series"][number]
    files = selection.series_files(STUDY / facts["dir"])
    assert [Path(file).name for file in files] == facts["files_in_reading_order"]


@pytest.mark.parametrize("number", NUMBERS, ids=DIRECTORIES)
def test_voxels_in_model_space_equal_the_references(number: int):
    """Resized, filled and oriented volume, bit for bit, and its geometry."""
    facts = META["series"][number]
    files = selection.series_files(STUDY / facts["dir"])
    volume = volumes.to_model_space(selection.read_image(files), "official")
    assert list(volume.array.shape) == facts["array_shape_zyx"]
    assert sha256(volume.array) == facts["arrays"]["image"]["sha256"]
    assert volume.axis == facts["z_idx"]
    np.testing.assert_allclose(volume.voxel_to_patient[:3, 3], facts["info"]["ReorientOrigin"])
    spacing = np.linalg.norm(volume.voxel_to_patient[:3, 2::-1], axis=0)
    np.testing.assert_allclose(spacing, facts["out_spacing"])


@pytest.mark.parametrize("number", NUMBERS, ids=DIRECTORIES)
def test_tokens_and_their_places_equal_the_references(study: PrimaStudy, number: int):
    """Every patch, doubled token, coordinate and foreground value, bit for bit."""
    facts, series, arrays = META["series"][number], study.series[number], expected(number)
    patches = series.patches
    assert list(patches.volume.shape) == facts["padded_shape"]
    assert sha256(patches.gather()) == facts["patches_all_sha256_f32"]
    assert sha256(patches.upsampled()) == facts["tokens_all_sha256_f32"]
    np.testing.assert_array_equal(patches.coords, arrays["coords"])
    np.testing.assert_array_equal(series.values, arrays["otsu_values"])


@pytest.mark.parametrize("number", NUMBERS, ids=DIRECTORIES)
def test_the_filter_keeps_the_references_tokens(study: PrimaStudy, number: int):
    """The same tokens in the same order, at every percentage."""
    facts, series, arrays = META["series"][number], study.series[number], expected(number)
    np.testing.assert_array_equal(series.kept, arrays["filter_useids"])
    np.testing.assert_array_equal(series.coords, arrays["filter_coords"])
    assert series.percent == facts["filter_final_percent"]
    for percent, counts in facts["filter_counts"].items():
        kept = filtering.tokens_from(series.values, series.patches.grid, int(percent))
        assert (len(kept), len(set(kept.tolist()))) == (counts["n"], counts["n_unique"])


@pytest.mark.parametrize("case", META["get_series_name"], ids=lambda case: case["name"])
def test_names_and_their_codes_equal_the_references(case: dict[str, Any]):
    """The rule for names, and the codes of their characters."""
    found = names.series_name(
        case["SeriesDescription"] or "", case["ProtocolName"] or "", "1.2.3.4"
    )
    assert found == case["name"]
    assert names.char_codes(found).tolist() == case["chartovec"]


@pytest.mark.parametrize("number", NUMBERS, ids=DIRECTORIES)
def test_codes_of_the_studys_names_equal_the_references(study: PrimaStudy, number: int):
    """The codes that the name encoder gets."""
    assert (
        names.char_codes(study.series[number].name).tolist() == META["series"][number]["name_vec"]
    )


def test_enclosed_tokens_follow_their_bin():
    """Dark tokens inside bright ones are taken, twice where bright enough themselves."""
    facts = META["hole_fill"]
    grid = tuple(n // side for n, side in zip(facts["vol_shape"], facts["patch"], strict=True))
    for percent, wanted in facts["useids_by_percent"].items():
        found = filtering.tokens_from(np.array(facts["values"]), grid, int(percent))
        assert found.tolist() == wanted


@pytest.mark.parametrize("case", META["percent_rule"])
def test_the_bound_is_lowered_while_too_few_tokens_pass(case: str):
    """More than 25 tokens end the search; at 0 all pass."""
    facts = META["percent_rule"][case]
    values = np.array(list(itertools.chain(*([v] * n for n, v in facts["values"]))))
    kept, percent = filtering.choose_tokens(values, (1, 8, 8))
    assert (percent, kept.tolist()) == (facts["final_percent"], facts["useids"])


def test_padding_puts_the_smaller_half_first():
    """Five slices become eight: one zero slice before, two after."""
    facts = META["edge"]["pad_5_to_8"]
    slices = np.arange(5 * 256 * 256, dtype=np.float32).reshape(5, 256, 256)
    volume = make_patches(slices, 0).volume
    assert list(volume.shape) == facts["shape"]
    empty = [not plane.any() for plane in volume]
    assert empty == [total == 0 for total in facts["sums_per_slice"]]


def test_the_agents_own_path_differs_only_where_it_means_to(study: PrimaStudy):
    """From the spool: equal voxels but for the filled edge and the order that names give."""
    given = tuple(
        SeriesInput(name, "MR", "", tuple(sorted((STUDY / name).iterdir()))) for name in DIRECTORIES
    )
    found = prepare(StudyInput("1.2", "MR", given))
    assert [series.series_uid for series in found.series] == DIRECTORIES
    for official, mine in zip(study.series, found.series, strict=True):
        assert (mine.name, mine.axis) == (official.name, official.axis)
        theirs, ours = slices_of(official), slices_of(mine)
        if mine.series_uid in AGAINST_THE_NORMAL:
            ours = ours[::-1]
        inside = (slice(None), slice(EDGE, -EDGE), slice(EDGE, -EDGE))
        assert np.abs(ours[inside].astype(int) - theirs[inside].astype(int)).max() <= 1


def slices_of(series: PrimaSeries) -> npt.NDArray[Any]:
    """A series' slices without the padding, slices first."""
    volume = np.moveaxis(series.patches.volume, series.axis, 0)
    return volume[volume.any(axis=(1, 2))]

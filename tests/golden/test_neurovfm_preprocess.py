"""Golden case n1: preprocessing gives the reference's voxels, tokens and batches."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own abbreviation
from factories import golden

from inference.errors import NoVolumeError, VolumeError
from inference.neurovfm import StudyPreprocessor, preprocess, resampling

CASE = golden.case("n1_preprocess")
META = golden.meta("n1_preprocess")
TOLERANCE = golden.tolerance(META["tolerance"]["tokens"])

READ = [name for name, facts in META["volumes"].items() if facts["result"] == "ok"]
REFUSED = [name for name, facts in META["volumes"].items() if facts["result"] != "ok"]
LOADED = [name for name, facts in META["studies"].items() if facts["result"] == "ok"]
# The reference fails on a directory of loose slices; here they form their series.
LINK_BYTES = 100
GATHERED = ["dicom_dir_as_study_path"]
FAILED = [n for n, f in META["studies"].items() if f["result"] != "ok" and n not in GATHERED]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The case's inputs, with links whole again that a copy turned into short texts."""
    target = tmp_path_factory.mktemp("n1") / "input"
    shutil.copytree(CASE / "input", target)
    for file in target.rglob("*"):
        if file.is_file() and file.stat().st_size < LINK_BYTES:
            linked = file.parent / file.read_text(encoding="utf-8").strip()
            shutil.copyfile(linked, file)
    return target


def image_of(name: str) -> sitk.Image:
    """The input image of a volume case."""
    return sitk.ReadImage(str(CASE / META["volumes"][name]["file"]))


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's C-order bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def located(argument: Any, inputs: Path) -> Any:
    """A study argument of the case with <input> replaced by its folder."""
    if isinstance(argument, list):
        return [located(item, inputs) for item in argument]
    return argument.replace("<input>", str(inputs))


@pytest.mark.parametrize("name", READ)
def test_voxels_in_model_space_are_the_references(name: str):
    """Orientation, spacing, crop and every resampled value are equal, in the same pixel type."""
    facts, expected = META["volumes"][name], golden.arrays(CASE / f"{name}.npz")
    oriented = resampling.orient(image_of(name))
    axis = resampling.slice_axis(oriented, "reference")
    image = resampling.crop(resampling.resample(oriented, axis, "reference"), axis)

    values = sitk.GetArrayFromImage(image)
    assert values.dtype == expected["pre"].dtype
    np.testing.assert_array_equal(values, expected["pre"])
    assert axis == facts["z_dim"]
    np.testing.assert_allclose(image.GetOrigin(), facts["pre_origin"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(image.GetDirection(), facts["pre_direction"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", READ)
def test_tokens_of_a_volume_are_the_references(name: str):
    """Values, coordinates and background flags of all tokens are equal, bit for bit."""
    facts, expected = META["volumes"][name], golden.arrays(CASE / f"{name}.npz")
    values, _ = preprocess.to_model_space(image_of(name), facts["kind"], "reference")
    series = preprocess.tokenize(values, facts["kind"], remove_background=False)

    assert list(values.shape) == facts["dhw"]
    mask = preprocess.foreground_mask(values, facts["kind"])
    np.testing.assert_array_equal(np.packbits(mask), expected["mask"])
    assert len(series) == len(facts["tokens_all"])
    for part, tokens in zip(series, facts["tokens_all"], strict=True):
        assert digest(part.tokens) == tokens["sha256"]
        np.testing.assert_array_equal(part.coords, expected["coords"])
        np.testing.assert_array_equal(part.foreground.ravel(), expected["filtered"] == 0)


@pytest.mark.parametrize("name", READ)
def test_token_centres_lie_where_the_resampled_image_puts_them(name: str):
    """The token grid's affine agrees with ITK's own geometry, for every slice axis."""
    facts = META["volumes"][name]
    image = image_of(name)
    values, grid_to_patient = preprocess.to_model_space(image, facts["kind"], "reference")
    oriented = resampling.orient(image)
    axis = resampling.slice_axis(oriented, "reference")
    processed = resampling.crop(resampling.resample(oriented, axis, "reference"), axis)
    turned = np.transpose(
        sitk.GetArrayFromImage(processed), {2: (0, 1, 2), 1: (1, 0, 2), 0: (2, 1, 0)}[axis]
    )
    np.testing.assert_array_equal(turned, values)

    token = np.array([1, 0, values.shape[2] // 16 - 1, 1.0])
    voxel = token[:3] * preprocess.BLOCK + (np.array(preprocess.BLOCK) - 1) / 2
    index = processed.TransformPhysicalPointToContinuousIndex((grid_to_patient @ token)[:3])
    zyx = np.array(index[::-1])
    np.testing.assert_allclose(zyx[{2: [0, 1, 2], 1: [1, 0, 2], 0: [2, 1, 0]}[axis]], voxel)


@pytest.mark.parametrize("name", REFUSED)
def test_volumes_the_reference_cannot_read_are_refused_with_a_reason(name: str):
    """Too small or without a slice axis: an error with words, never a crash."""
    with pytest.raises(VolumeError, match=r"too small|no slice axis"):
        preprocess.preprocess_image(image_of(name), META["volumes"][name]["kind"], mode="reference")


@pytest.mark.parametrize("name", LOADED)
def test_study_batches_are_the_references(name: str, inputs: Path):
    """`load_study` returns the reference's batch: files, lists, DICOM series, multi-frames."""
    facts, expected = META["studies"][name], golden.arrays(CASE / f"study_{name}.npz")
    preprocessor = StudyPreprocessor(**facts["kwargs"])
    batch = preprocessor.load_study(located(facts["arg"], inputs), modality=facts["modality"])

    np.testing.assert_allclose(batch["img"].numpy(), expected["img"], **TOLERANCE)
    for key in ("coords", "series_cu_seqlens", "study_cu_seqlens"):
        np.testing.assert_array_equal(batch[key].numpy(), expected[key], err_msg=key)
    assert batch["path"] == located(facts["path"], inputs)
    for key in ("mode", "series_max_len", "study_max_len"):
        assert batch[key] == facts[key]
    assert [list(size) for size in batch["size"]] == facts["size"]
    assert {key: str(batch[key].dtype) for key in facts["dtypes"]} == facts["dtypes"]
    assert batch["series_masks_indices"].numel() == 0


@pytest.mark.parametrize("name", FAILED)
def test_studies_without_a_readable_volume_are_refused_cleanly(
    name: str, inputs: Path, tmp_path: Path
):
    """The reference dies on some of these inside numpy; here each says that nothing was read."""
    facts = META["studies"][name]
    argument = facts["arg"]
    study = tmp_path if argument == "<input>/nothing_here" else located(argument, inputs)
    with pytest.raises(NoVolumeError, match="No valid"):
        StudyPreprocessor().load_study(study, modality=facts["modality"])


@pytest.mark.parametrize("name", [n for n in GATHERED if n in META["studies"]])
def test_a_directory_of_loose_slices_is_read_as_its_series(name: str, inputs: Path):
    """The reference takes every slice for a volume and fails; the series is what was meant."""
    facts = META["studies"][name]
    study = located(facts["arg"], inputs)
    loose = StudyPreprocessor().load_study(study, modality=facts["modality"])
    listed = StudyPreprocessor().load_study([study], modality=facts["modality"])
    assert loose["path"] == listed["path"]
    np.testing.assert_array_equal(loose["img"].numpy(), listed["img"].numpy())

"""The official interface: what holds beyond the golden numbers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own abbreviation
import torch
from factories.neurovfm import ENCODER, head_volume

import inference.neurovfm
from inference.errors import ConfigError, InputError, NoVolumeError, WeightsError
from inference.neurovfm import (
    StudyPreprocessor,
    interpret_findings,
    load_diagnostic_head,
    load_encoder,
    load_vlm,
)
from inference.neurovfm.model import VisionTransformer


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A directory with two CT volumes and one file that is none."""
    folder = tmp_path / "study"
    folder.mkdir()
    for name, size in (("a.nii.gz", 64), ("b.nii", 56)):
        image = sitk.GetImageFromArray(head_volume((8, size, size)))
        image.SetSpacing((1.0, 1.0, 4.0))
        sitk.WriteImage(image, str(folder / name))
    (folder / "c.nii").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_a_study_goes_from_files_to_named_probabilities(
    study: Path, official: Callable[..., Path], encoder: VisionTransformer, head_folder: Path
):
    """The four lines of the reference's example, on local files."""
    folder = official("encoder", ENCODER, encoder.state_dict())
    pipeline, preprocessor = load_encoder(folder, device="cpu")
    head = load_diagnostic_head(head_folder, device="cpu")

    batch = preprocessor.load_study(study, modality="ct")
    assert len(batch["path"]) == 6
    predictions = head.predict(pipeline.embed(batch), batch)
    assert [name for name, _, _ in predictions] == ["label_0", "label_1", "label_2"]
    assert all(0 < p < 1 and d == int(p > 0.5) for _, p, d in predictions)


def test_given_background_masks_choose_the_foreground(
    study: Path, official: Callable[..., Path], encoder: VisionTransformer
):
    """Tokens kept whole with indices of the foreground embed as if they had been left out."""
    folder = official("encoder", ENCODER, encoder.state_dict())
    pipeline, preprocessor = load_encoder(folder, device="cpu")
    files = [study / "a.nii.gz"]
    expected = preprocessor.load_study(files, modality="ct")
    whole = StudyPreprocessor(remove_background=False).load_study(files, modality="ct")
    wanted = {tuple(c) for c in expected["coords"].tolist()}
    kept = [i for i, c in enumerate(whole["coords"].tolist()) if tuple(c) in wanted]
    assert len(kept) == len(expected["img"]) < len(whole["img"])
    masked: dict[str, Any] = {**whole, "series_masks_indices": torch.tensor(kept)}
    masked["series_cu_seqlens"] = expected["series_cu_seqlens"]
    torch.testing.assert_close(
        pipeline.embed(masked, use_amp=False), pipeline.embed(expected, use_amp=False)
    )


def test_a_batch_that_contradicts_itself_is_refused(
    study: Path, official: Callable[..., Path], encoder: VisionTransformer
):
    """Boundaries, paths and tokens have to agree, and CT paths name their window."""
    folder = official("encoder", ENCODER, encoder.state_dict())
    pipeline, preprocessor = load_encoder(folder, device="cpu")
    batch = preprocessor.load_study(study, modality="ct")
    with pytest.raises(InputError, match="series bounds"):
        pipeline.embed({**batch, "img": batch["img"][:-1], "coords": batch["coords"][:-1]})
    with pytest.raises(InputError, match="window"):
        pipeline.embed({**batch, "path": ["a"] * 6})


def test_modalities_are_read_in_any_case(study: Path):
    """A PACS writes CT; the reference loads that and then cannot embed it."""
    upper = StudyPreprocessor().load_study(study, modality="CT")
    lower = StudyPreprocessor().load_study(study, modality="ct")
    assert upper["mode"] == ["CT"] * 6
    np.testing.assert_array_equal(upper["img"], lower["img"])


def test_missing_paths_and_empty_directories_are_errors(tmp_path: Path):
    """As in the reference: FileNotFoundError, and a ValueError when nothing is there."""
    with pytest.raises(FileNotFoundError):
        StudyPreprocessor().load_study([tmp_path / "gone.nii"], modality="ct")
    with pytest.raises(NoVolumeError):
        StudyPreprocessor().load_study(tmp_path, modality="ct")
    assert issubclass(NoVolumeError, ValueError)


def test_other_patch_sizes_are_refused():
    """No published model reads other tokens."""
    with pytest.raises(ConfigError, match="patch_size"):
        StudyPreprocessor(patch_size=(8, 8, 8))


def test_findings_leave_the_house_only_by_a_client_that_was_named():
    """The reference asks a public service by default; here nobody is asked unless named."""
    with pytest.raises(NotImplementedError, match="name the client"):
        interpret_findings("A bleed.")


def test_a_findings_model_that_is_not_there_is_said():
    """By its name."""
    with pytest.raises(WeightsError, match="no such model directory"):
        load_vlm("x")


def test_reading_labels_does_not_import_torch():
    """Manifests and command lines stay quick."""
    code = (
        "import sys; from inference.neurovfm import labels; labels.published('CT'); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_public_name_is_there():
    """The lazy names of the package resolve."""
    for name in inference.neurovfm.__all__:
        assert getattr(inference.neurovfm, name) is not None
    with pytest.raises(AttributeError):
        _ = inference.neurovfm.nothing

"""From DICOM files through the spool's volumes and an imported pack to the golden probabilities."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import golden

from inference.engine import Engine
from inference.findings import Status
from inference.neurovfm import load_diagnostic_head, load_encoder
from inference.neurovfm.official import Identity, import_official
from inference.neurovfm.preprocess import preprocess_volume
from inference.study import SeriesInput, StudyInput
from inference.volumes import read_series
from inference.volumes.model_grid import model_grid

INPUT = golden.case("n1_preprocess") / "input"
SERIES = {
    "dicom_ct_series": ("CT", "study_dicom_series_dirs_in_list_ct"),
    "dicom_mr_sagittal_series": ("MR", "study_dicom_series_dirs_in_list_mr"),
    "multiframe.dcm": ("MR", "study_dicom_multiframe_file"),
}
HEAD = "cta_gated"


def series_of(name: str) -> SeriesInput:
    """The case's DICOM files as a series in the spool."""
    path = INPUT / name
    files = tuple(sorted(path.iterdir())) if path.is_dir() else (path,)
    return SeriesInput("1.2.3", SERIES[name][0], "", files)


@pytest.mark.parametrize("name", SERIES)
def test_the_agents_own_path_gives_the_golden_tokens(name: str):
    """Spool files to tokens without a NIfTI file between, under the safe rules, bit for bit."""
    modality, study = SERIES[name]
    expected = golden.arrays(golden.case("n1_preprocess") / f"{study}.npz")
    (volume,) = read_series(series_of(name)).volumes
    grid = model_grid(volume)
    prepared = preprocess_volume(grid.array, grid.affine, modality, spacing_mm=grid.spacing_mm)
    tokens = np.concatenate([part.tokens for part in prepared.series])
    np.testing.assert_array_equal(tokens, expected["img"])
    coords = np.concatenate([part.coords for part in prepared.series])
    np.testing.assert_array_equal(coords, expected["coords"])


@pytest.mark.parametrize("name", SERIES)
def test_an_imported_official_pack_answers_the_golden_probabilities(name: str, tmp_path: Path):
    """Golden encoder and head as a pack: the engine says what golden tokens give officially."""
    modality, study = SERIES[name]
    encoder_folder = golden.case("n2_encoder") / "checkpoint"
    head_folder = golden.case("n3_heads") / HEAD
    identity = Identity("golden", "1", created=dt.date(2026, 1, 1))
    import_official(encoder_folder, {modality: head_folder}, tmp_path / "pack", identity)
    found = Engine([tmp_path / "pack"], device="cpu").analyse(
        StudyInput("1.2", modality, (series_of(name),)), "golden"
    )

    expected = golden.arrays(golden.case("n1_preprocess") / f"{study}.npz")
    facts = golden.meta("n1_preprocess")["studies"][study.removeprefix("study_")]
    batch = {key: torch.from_numpy(values) for key, values in expected.items()}
    batch |= {"mode": facts["mode"], "path": facts["path"]}
    embeddings = load_encoder(encoder_folder, device="cpu")[0].embed(batch, use_amp=False)
    head = load_diagnostic_head(head_folder, device="cpu")
    official = head.predict(embeddings, batch, use_amp=False)
    assert found.status is Status.SUCCEEDED
    np.testing.assert_allclose(
        [finding.probability for finding in found.findings],
        [probability for _, probability, _ in official],
        rtol=1e-6,
    )

"""Promises of the DICOM files of synthetic studies, and of the demo's set of studies."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from training.synthetic.dicom import StudyTags, series_uids, study_uid, write_dicom
from training.synthetic.scenarios import demo_scenarios
from training.synthetic.study import SyntheticStudy

Maker = Callable[..., SyntheticStudy]
Written = tuple[SyntheticStudy, list[Path], StudyTags]

_VERIFIER = shutil.which("dciodvfy", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")


@pytest.fixture(scope="module", params=["CT", "MR"])
def written(
    request: pytest.FixtureRequest, study: Maker, tmp_path_factory: pytest.TempPathFactory
) -> Written:
    """A small study and its files."""
    made = study(request.param, "infarct")
    tags = StudyTags(location="ED", ordered_priority="STAT")
    return made, write_dicom(made, tmp_path_factory.mktemp("dicom"), tags), tags


def test_files_hold_the_voxels_and_the_geometry(written: Written) -> None:
    """Rescaled pixels and positions give back array and affine."""
    made, files, tags = written
    for series, uid in zip(made.series, series_uids(made, tags), strict=True):
        slices = [ds for f in files if (ds := dcmread(f)).SeriesInstanceUID == uid]
        slices.sort(key=lambda ds: int(ds.InstanceNumber))
        stored = np.stack([ds.pixel_array for ds in slices]).astype(np.float64)
        if made.modality == "CT":
            stored = stored * float(slices[0].RescaleSlope) + float(slices[0].RescaleIntercept)
        positions = np.array([ds.ImagePositionPatient for ds in slices], dtype=np.float64)
        wanted = series.affine[:3, 3] + np.arange(len(slices))[:, None] * series.affine[:3, 0]

        assert np.array_equal(stored, series.array)
        assert np.abs(positions - wanted).max() < 1e-5


def test_a_study_comes_with_what_scanners_add(written: Written) -> None:
    """A localizer always, a dose page with CT; both are told from the image series."""
    made, files, _ = written
    headers = [dcmread(f, stop_before_pixels=True) for f in files]
    kinds = {str(ds.ImageType[2]) for ds in headers if len(ds.ImageType) > 2}

    assert "LOCALIZER" in kinds
    assert ("SCREEN SAVE" in kinds) == (made.modality == "CT")


def test_every_file_says_who_where_and_how_urgent(written: Written) -> None:
    """Identity and order stand in every instance, as routing and priority read them."""
    made, files, tags = written
    for file in files:
        ds = dcmread(file, stop_before_pixels=True)

        assert ds.StudyInstanceUID == study_uid(made, tags)
        assert (ds.CurrentPatientLocation, ds.RequestedProcedurePriority) == ("ED", "STAT")
        assert ds.BodyPartExamined in ("HEAD", "BRAIN")
        assert str(ds.PatientName) == tags.patient_name


def test_identifiers_are_unique_and_repeatable(written: Written, tmp_path: Path) -> None:
    """Writing again gives the same UIDs and bytes, so a repeated demo repeats its studies."""
    made, files, tags = written
    again = write_dicom(made, tmp_path, tags)
    uids = [dcmread(f, stop_before_pixels=True).SOPInstanceUID for f in files]

    assert len(set(uids)) == len(files)
    assert [f.read_bytes() for f in again] == [f.read_bytes() for f in files]


@pytest.mark.skipif(_VERIFIER is None, reason="dciodvfy (dicom3tools) is not installed")
def test_files_are_conformant(written: Written) -> None:
    """Dciodvfy finds no error in the first and last instance of every series."""
    _, files, _ = written
    folders = sorted({f.parent for f in files})
    chosen = [f for folder in folders for f in (min(folder.iterdir()), max(folder.iterdir()))]
    for file in chosen:
        report = subprocess.run(
            [str(_VERIFIER), "-new", str(file)], capture_output=True, text=True, check=False
        )

        assert "Error" not in report.stderr + report.stdout


def test_demo_set_mixes_modalities_and_outcomes() -> None:
    """At least eight studies, CT and MR, normal and not, each patient once."""
    scenarios = demo_scenarios(0)

    assert len(scenarios) >= 8
    assert {s.modality for s in scenarios} == {"CT", "MR"}
    assert {bool(s.labels) for s in scenarios} == {True, False}
    assert len({s.tags.patient_id for s in scenarios}) == len(scenarios)
    assert len({s.tags.accession_number for s in scenarios}) == len(scenarios)


def test_demo_set_of_another_seed_is_another_set() -> None:
    """The seed decides anatomy, not who is in the set."""
    first, second = demo_scenarios(0), demo_scenarios(1)

    assert [s.key for s in first] == [s.key for s in second]
    assert all(a.seed != b.seed for a, b in zip(first, second, strict=True))
    assert demo_scenarios(0) == first

"""Programs that others wrote read our objects."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from factories import result_cases, results

SCRIPTS = Path(sys.executable).parent
Made = Callable[[str], dict[str, list[Path]]]


def dcmqi(program: str) -> str:
    """A program of dcmqi, or a skip: it is no dependency of ours."""
    found = shutil.which(program, path=str(SCRIPTS)) or shutil.which(program)
    if found is None:
        pytest.skip("dcmqi is not installed (pip install dcmqi)")
    return found


@pytest.mark.peers
@pytest.mark.parametrize("case", result_cases.CASES)
def test_dcmtk_prints_the_report(case: str, made: Made):
    """DCMTK reads every report, with the outcome and the priority in it."""
    (path,) = made(case)["sr"]
    result = subprocess.run(["dsrdump", path], capture_output=True, text=True, check=True)

    assert "Suggested reading priority" in result.stdout
    assert "Summary of Analyses" in result.stdout
    assert "E: " not in result.stderr


@pytest.mark.parametrize("case", ["axial_ct", "oblique_mr", "enhanced_ct"])
def test_dcmqi_places_the_mask(case: str, made: Made, tmp_path: Path):
    """segimage2itkimage gives a volume whose center of mass is where the model looked."""
    program = dcmqi("segimage2itkimage")
    (path,) = made(case)["seg"]
    subprocess.run(
        [program, "--inputDICOM", path, "--outputDirectory", tmp_path, "-t", "nrrd"],
        check=True,
        capture_output=True,
    )
    image = SimpleITK.ReadImage(str(tmp_path / "1.nrrd"))
    inside = np.argwhere(SimpleITK.GetArrayFromImage(image) > 0)[:, ::-1]
    center = image.TransformContinuousIndexToPhysicalPoint(inside.mean(axis=0).tolist())

    assert np.abs(np.array(center) - results.TARGET_MM).max() < 4.0


@pytest.mark.parametrize("case", ["axial_ct", "nothing_found", "failed", "second_revision"])
def test_dcmqi_reads_the_report(case: str, made: Made, tmp_path: Path):
    """tid1500reader accepts the template."""
    program = dcmqi("tid1500reader")
    (path,) = made(case)["sr"]
    output = tmp_path / "report.json"
    subprocess.run(
        [program, "--inputDICOM", path, "--outputMetadata", output], check=True, capture_output=True
    )

    assert "Suggested reading priority" in output.read_text()

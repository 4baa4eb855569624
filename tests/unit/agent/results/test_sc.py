"""The summary page: everything that matters is on it, the patient is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from factories import dicom, result_cases, results

from agent.results import compose, page, sc
from agent.results.context import ResultContext
from inference.findings import Acuity


def pixels(context: ResultContext) -> np.ndarray:
    """The page of a context."""
    (made,) = compose.compose(context, ["sc"])
    return made.dataset.pixel_array


def test_nothing_of_the_patient_is_drawn(tmp_path: Path):
    """Two patients, names and numbers apart, give the same pixels."""
    pages = [
        pixels(
            results.positive(
                dicom.ct_series(
                    n=6,
                    rows=32,
                    cols=32,
                    patient=patient,
                    PatientName=f"Name^{patient}",
                    StudyDescription=f"study of {patient}",
                    SeriesDescription=f"series of {patient}",
                ),
                tmp_path / patient,
            )
        )
        for patient in ("Anna", "Bertha")
    ]

    np.testing.assert_array_equal(*pages)


def test_the_page_declares_its_text(context: ResultContext):
    """Burned-in annotation, derived secondary capture, color."""
    (made,) = compose.compose(context, ["sc"])
    ds = made.dataset

    assert ds.BurnedInAnnotation == "YES"
    assert list(ds.ImageType) == ["DERIVED", "SECONDARY"]
    assert (ds.PhotometricInterpretation, ds.Rows, ds.Columns) == ("RGB", page.HEIGHT, page.WIDTH)
    assert ds.pixel_array.dtype == np.uint8


@pytest.mark.parametrize("case", ["axial_ct", "nothing_found", "failed", "partial"])
def test_the_warning_is_on_every_page(case: str, tmp_path: Path):
    """The research banner covers the full width, whatever the outcome."""
    image = pixels(result_cases.CASES[case](tmp_path))

    assert (image[4] == page.WARNING).all()
    assert (image[20:80, : page.WIDTH // 2] == (236, 239, 244)).all(axis=-1).sum() > 1000


def test_the_key_slice_shows_the_attention(tmp_path: Path):
    """The picture of a located finding is colored, that of nothing found is not there."""
    located = pixels(result_cases.axial_ct(tmp_path / "a"))
    nothing = pixels(result_cases.nothing_found(tmp_path / "b"))

    def colored(image: np.ndarray) -> int:
        part = image[240:680, page.LEFT + 30 :].astype(int)
        return int((np.ptp(part, axis=-1) > 80).sum())

    assert colored(located) > 500
    assert colored(nothing) == 0


def test_the_notice_of_the_pack_is_on_the_page(context: ResultContext):
    """A demonstration model says so on everything it makes."""
    findings = context.findings
    silent = dataclasses.replace(findings, pack=dataclasses.replace(findings.pack, notice=""))

    with_notice = pixels(context)
    without = pixels(dataclasses.replace(context, findings=silent))

    changed = np.argwhere((with_notice != without).any(axis=-1))
    assert len(changed) > 500
    assert changed[:, 0].min() > page.HEIGHT - 78


def test_different_outcomes_look_different(context: ResultContext):
    """Level, probability and status each change the page."""
    findings = context.findings
    changed = [
        context,
        dataclasses.replace(context, priority=dataclasses.replace(context.priority, level="LOW")),
        dataclasses.replace(
            context,
            findings=dataclasses.replace(
                findings,
                findings=(
                    dataclasses.replace(findings.findings[0], probability=0.61),
                    *findings.findings[1:],
                ),
            ),
        ),
    ]

    assert len({pixels(one).tobytes() for one in changed}) == 3


def test_findings_above_threshold_are_never_crowded_out():
    """However many labels a pack has, positives stand first and the rest is counted."""
    labels = [results.finding(f"absent{n}", 0.45) for n in range(30)]
    labels += [results.finding("late", 0.51, acuity=Acuity.ROUTINE)]

    rows, left_out = page.table_rows(tuple(labels))

    assert rows[0].label == "late"
    assert len(rows) + left_out == 31


@pytest.mark.parametrize(
    ("vector", "letters"),
    [
        ((1, 0, 0), "L"),
        ((-1, 0, 0), "R"),
        ((0, -1, 0), "A"),
        ((0, 0, 1), "H"),
        ((-0.8, 0.6, 0.0), "RP"),
        ((0.99, 0.1, 0.0), "L"),
    ],
)
def test_sides_are_named_by_patient_direction(vector: tuple[float, float, float], letters: str):
    """LPS axes give L, P and H; small obliquities are not named."""
    assert sc.direction(np.array(vector)) == letters

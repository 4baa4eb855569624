"""The parity report: complete, inside every tolerance, and honest when something is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from factories import golden

from inference.parity import Difference, Row, chapters, compose, measure, write_report

P1 = "p1_prima_preprocess"


def differences() -> list[Difference]:
    """Everything the report must list, of both families."""
    return [difference for chapter in chapters() for difference in chapter.differences]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Measured once: every case of this run's golden set."""
    return measure(golden.root())


def test_every_comparison_is_inside_its_tolerance(rows: list[Row]):
    """The table that docs/parity.md prints holds for the code as it is."""
    assert [row for row in rows if not row.within] == []


def test_every_case_of_the_golden_set_is_compared(rows: list[Row]):
    """No volume, study, variant or head is left out of the report."""
    subjects = {(row.case, row.subject) for row in rows}
    first = golden.meta("n1_preprocess")
    read = [name for name, facts in first["volumes"].items() if facts["result"] == "ok"]
    loaded = [f"study {n}" for n, facts in first["studies"].items() if facts["result"] == "ok"]
    variants = [f"variant {name}" for name in golden.meta("n2_encoder")["variants"]]
    expected = {("n1_preprocess", name) for name in (*read, *loaded)}
    expected |= {("n2_encoder", name) for name in ("checkpoint", *variants)}
    expected |= {("n3_heads", name) for name in golden.meta("n3_heads")["cases"]}
    expected |= {(P1, facts["dir"]) for facts in golden.meta(P1)["series"]}
    if (golden.case("p4_full_model") / "primafullmodel107.pt").is_file():
        expected |= {("p3_hiervit", "checkpoint"), ("p3_hiervit", "variant inner 292")}
        expected |= {("p4_full_model", name) for name in ("components", "predictions file")}
        for file in golden.meta("p4_full_model")["variants"]:
            expected.add(("p4_full_model", f"variant {Path(file).stem}"))
    assert expected <= subjects


def test_the_report_shows_what_is_outside_its_tolerance(rows: list[Row], tmp_path: Path):
    """A row that fails is counted in the head line and marked."""
    broken = [dataclasses.replace(rows[0], within=False, difference=1.0), *rows[1:]]
    write_report(broken, chapters(), tmp_path / "parity.md")
    text = (tmp_path / "parity.md").read_text(encoding="utf-8")
    assert f"{len(rows)} comparisons, 1 outside" in text
    assert "**no**" in text
    assert "**no**" not in compose(rows, chapters())
    for difference in differences():
        assert difference.reason in text


def test_an_empty_folder_is_not_a_golden_set(tmp_path: Path):
    """Nothing measured must not read as nothing wrong."""
    with pytest.raises(FileNotFoundError, match="no golden case"):
        measure(tmp_path)


def test_the_committed_report_lists_what_the_code_says(repository: Path):
    """docs/parity.md was written from this code: every case within, the same differences."""
    text = (repository / "docs" / "parity.md").read_text(encoding="utf-8")
    assert ", 0 outside their tolerance" in text
    for case in ("n1_preprocess", "n2_encoder", "n3_heads", P1):
        assert f"| {case} |" in text
    for difference in differences():
        assert f"| {difference.subject} | {difference.reference} |" in text

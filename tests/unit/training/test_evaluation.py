"""The evaluation report: numbers of known answers, groups, pictures, a card in the pack."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pytest
from factories import dicom
from factories.model_packs import bright_pack
from typer.testing import CliRunner

from agent.cli import app
from inference import packs
from inference.engine import Engine
from inference.findings import Acuity
from training.config import read_config
from training.data.table import StudyRow, write_table
from training.evaluation import document, predictions, subgroups, summary
from training.evaluation.predictions import Prediction
from training.runtime import RunError
from training.voljepa.recipe import PretrainConfig

KEY = ("CT", "bleed")


def given(count: int = 80) -> tuple[list[StudyRow], list[Prediction]]:
    """Half with a bleed; the model misses every second bleed of women, and sees nothing else."""
    rows, answers = [], []
    for n in range(count):
        sick, female = n % 2 == 0, n % 4 < 2
        seen = sick and not (female and n % 8 < 2)
        rows.append(
            StudyRow(
                f"s{n}",
                Path(),
                f"p{n}",
                "CT",
                dt.date(2024, 1, 1) + dt.timedelta(days=n),
                "F" if female else "M",
                float(n),
                labels={"bleed": int(sick)},
            )
        )
        probability = {"bleed": 0.9 if seen else 0.2}
        acuity = "urgent" if seen else "normal"
        answers.append(Prediction(f"s{n}", "CT", probability, {"bleed": seen}, acuity))
    return rows, answers


def evaluated() -> summary.Evaluation:
    """The evaluation of `given`."""
    rows, answers = given()
    return summary.evaluate(
        "test 1", "00", rows, answers, {KEY: 0.5}, {KEY: Acuity.URGENT}, {KEY: 40}
    )


def test_the_numbers_are_those_that_were_put_in() -> None:
    """A quarter of the bleeds is missed, all of women."""
    made = evaluated()
    (label,) = made.labels

    assert (label.positives, label.negatives, label.training_positives) == (40, 40, 40)
    assert label.sensitivity is not None
    assert label.sensitivity.value == 0.75
    assert label.specificity is not None
    assert label.specificity.value == 1.0
    assert label.auroc is not None
    assert label.auroc.value == pytest.approx(0.875)
    assert made.confusion["urgent"] == {"urgent": 30, "routine": 0, "normal": 10}


def test_who_is_served_worse_is_seen() -> None:
    """The gap between the sexes is the half that is missed; other attributes show theirs."""
    made = evaluated()
    (sex,) = [table for table in made.groups if table.attribute == "sex"]

    assert {g.group: g.sensitivity for g in sex.groups} == {"F": 0.5, "M": 1.0}
    assert sex.odds_gap == 0.5
    assert made.odds_gaps()["sex"] == 0.5
    assert {t.attribute for t in made.groups} == {"sex", "age", "weekday"}


def test_small_groups_are_not_compared() -> None:
    """Four positives say nothing."""
    rows, answers = given(16)
    truth = np.array([r.labels["bleed"] == 1 for r in rows])
    called = np.array([p.present["bleed"] for p in answers])
    table = subgroups.by_group("sex", "bleed", rows, truth, called.astype(float), called)

    assert table is not None
    assert table.odds_gap is None


def test_studies_that_were_not_analysed_are_counted_apart() -> None:
    """With their reason, in no number."""
    rows, answers = given(40)
    answers[0] = Prediction("s0", "CT", {}, {}, "", "no DICOM series of its modality")
    made = summary.evaluate("t", "", rows, answers, {KEY: 0.5}, {KEY: Acuity.URGENT})

    assert made.studies == 39
    assert made.refused == {"no DICOM series of its modality": 1}


def test_the_report_is_one_page_and_one_json(tmp_path: Path) -> None:
    """Pictures inside, nothing fetched, what a table holds is escaped."""
    pytest.importorskip("matplotlib")
    numbers, page = document.write_report(evaluated(), tmp_path, "Research <use> only.")
    text = page.read_text()

    assert text.count("data:image/png;base64,") >= 3
    assert "http" not in text
    assert "Research &lt;use&gt; only." in text
    assert json.loads(numbers.read_text())["equalised_odds_gaps"]["sex"] == 0.5


def test_evaluate_runs_a_pack_over_dicom_studies_and_writes_its_card(tmp_path: Path) -> None:
    """From the command line: report, card in the pack, pack still whole; a second run is quick."""
    pytest.importorskip("matplotlib")
    pack = bright_pack(tmp_path / "pack")
    label = packs.load_manifest(pack).heads[0].labels[0].id
    rows = []
    for n in range(2):
        series = dicom.ct_series(n=12, patient=str(n))
        dicom.study_dir(tmp_path / f"s{n}", series)
        uid = str(series[0].StudyInstanceUID)
        rows.append(StudyRow(uid, tmp_path / f"s{n}", f"p{n}", "CT", labels={label: n}))
    write_table(tmp_path / "t.csv", rows)
    run = CliRunner().invoke(
        app, ["evaluate", str(pack), str(tmp_path / "t.csv"), str(tmp_path / "out"), "--card"]
    )

    assert run.exit_code == 0, run.output
    packs.verify(pack)
    assert "Model card" in (pack / "card.md").read_text()
    (kept,) = (tmp_path / "out").glob("predictions-*.jsonl")
    read = predictions.read_predictions(kept)
    assert [one.study for one in read] == [row.study for row in rows]
    assert all(0 <= one.probability[label] <= 1 for one in read)
    again = predictions.predict(Engine([pack], "cpu"), "not a pack", rows, kept)
    assert again == read


def test_a_run_file_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    """By name, also inside; a good one fills in the defaults."""
    (tmp_path / "run.toml").write_text('size = "small"\n[batching]\nseries = 4\n')
    read = read_config(tmp_path / "run.toml", PretrainConfig)
    assert (read.size, read.batching.series, read.epochs) == ("small", 4, 100)

    (tmp_path / "run.toml").write_text("[batching]\nsize = 4\n")
    with pytest.raises(RunError, match=r"batching: unknown key 'size'"):
        read_config(tmp_path / "run.toml", PretrainConfig)
    (tmp_path / "run.toml").write_text('epochs = "many"\n')
    with pytest.raises(RunError, match="epochs"):
        read_config(tmp_path / "run.toml", PretrainConfig)

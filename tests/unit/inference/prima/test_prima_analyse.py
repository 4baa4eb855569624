"""A study through a Prima pack and the engine: every label answered, or a reason why not."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from factories import dicom, prima

from inference.engine import Engine
from inference.findings import Findings, Status
from inference.prima.importing import Identity, Sources, import_official
from inference.study import SeriesInput, StudyInput


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine with a small pack."""
    folder = tmp_path_factory.mktemp("official")
    file = prima.save(prima.full_model(prima.hiervit()), folder / "model.pt")
    sources = Sources(file, *prima.tokenizer_files(folder))
    identity = Identity("prima", "1.0.0", created=dt.date(2026, 11, 23))
    import_official(sources, folder / "pack", identity)
    return Engine([folder / "pack"], device="cpu")


def mr(folder: Path, key: str) -> SeriesInput:
    """A small MR series on disk."""
    datasets = dicom.mr_series(8, 64, 64, key=key)
    files = dicom.save_all(datasets, folder / key)
    return SeriesInput(str(datasets[0].SeriesInstanceUID), "MR", "AX T2", files)


def test_every_label_is_answered_and_every_series_accounted_for(engine: Engine, tmp_path: Path):
    """One readable and one broken series: partial, with scores, referral and priority."""
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"no DICOM")
    given = (mr(tmp_path, "a"), SeriesInput("1.2.3", "MR", "broken", (broken,)))
    said: list[str] = []
    found = engine.analyse(StudyInput("1.2", "MR", given), "prima", said.append)
    assert found.status in (Status.PARTIAL, Status.SUCCEEDED), found.reason
    assert [report.used for report in found.series] == [True, False]
    assert found.series[1].reason
    assert [f.label for f in found.findings] == [*prima.DIAGNOSES, *prima.REFERRALS]
    assert all(f.score is not None and f.present == (f.score >= 0) for f in found.findings)
    assert found.model_priority is not None
    assert found.model_priority.levels == ("none", "low", "medium", "high")
    assert any("encoding series 1" in text for text in said)
    assert Findings.from_json(found.to_json()) == found


def test_what_prima_cannot_read_is_not_attempted(engine: Engine, tmp_path: Path):
    """A CT study and an empty one get a result that says why."""
    ct = engine.analyse(StudyInput("1.2", "CT", (mr(tmp_path, "b"),)), "prima")
    assert ct.status is Status.NOT_ATTEMPTED
    assert "CT" in ct.reason
    empty = engine.analyse(StudyInput("1.2", "MR", ()), "prima")
    assert empty.status is Status.NOT_ATTEMPTED
    assert "no series" in empty.reason

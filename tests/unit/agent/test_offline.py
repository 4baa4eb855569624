"""A directory in, findings out: what is a study, and what is refused with a reason."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from factories import dicom, results, rows
from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage

from agent import config as configs
from agent import offline
from agent.config import Config
from agent.offline import OfflineError
from inference.findings import Findings
from inference.study import StudyInput


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Head CTs go to a pack, knees are skipped."""
    return configs.from_mapping(
        {
            "packs": {"head": {"path": str(tmp_path), "thresholds": {rows.HEMORRHAGE: 0.2}}},
            "routing": {
                "rules": [
                    {"name": "knee", "when": {"text": "knee"}, "skip": "no pack reads knees"},
                    {"name": "head", "when": {"text": "head"}, "pack": "head"},
                ]
            },
        },
        source="test",
    )


class Engine:
    """Answers with one bleed of this probability."""

    def __init__(self, probability: float) -> None:
        self._probability = probability

    def analyse(self, study: StudyInput, _pack: str) -> Findings:
        """Answer."""
        return rows.findings(rows.finding(probability=self._probability), study_uid=study.study_uid)


def test_directory_becomes_a_study(tmp_path: Path) -> None:
    """Series by UID, whatever the folders; other files and reports are passed over."""
    first, second = dicom.ct_series(n=3), dicom.ct_series(n=2, key="2")
    dicom.study_dir(tmp_path / "in", first, second)
    (tmp_path / "in" / "notes.txt").write_text("no DICOM")
    (tmp_path / "in" / "empty").write_bytes(b"")
    found = offline.read_directory(tmp_path / "in")

    assert found.study.study_uid == first[0].StudyInstanceUID
    assert found.study.modality == "CT"
    assert sorted(len(s.files) for s in found.study.series) == [2, 3]
    assert "CT HEAD" in found.facts.texts


def test_media_with_a_directory_file_is_read(tmp_path: Path) -> None:
    """A CD has a DICOMDIR; it is no study of its own."""
    dicom.study_dir(tmp_path / "cd", dicom.ct_series(n=2, rows=16, cols=16))
    index = Dataset()
    index.FileSetID = "CD"
    index.file_meta = dicom.new_meta(MediaStorageDirectoryStorage, dicom.uid("cd"))
    dicom.save(index, tmp_path / "cd" / "DICOMDIR")

    found = offline.read_directory(tmp_path / "cd")

    assert [len(s.files) for s in found.study.series] == [2]


@pytest.mark.parametrize("seed", range(5))
def test_damaged_files_are_passed_over(tmp_path: Path, seed: int) -> None:
    """Whatever a damaged header makes a parser raise, the study beside it is read."""
    chance = random.Random(seed)
    dicom.study_dir(tmp_path, dicom.ct_series(n=2, rows=8, cols=8))
    (damaged,) = dicom.save_all(dicom.ct_series(n=1, rows=8, cols=8, key="9"), tmp_path)
    whole = damaged.read_bytes()
    for _ in range(40):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            content[chance.randrange(132, len(content))] = chance.randrange(256)
        damaged.write_bytes(content[: chance.randrange(132, len(content))])
        with contextlib.suppress(OfflineError):  # some damage makes another study of it
            assert offline.read_directory(tmp_path).study.series


def test_rules_see_what_they_see_in_a_running_agent(tmp_path: Path) -> None:
    """The same facts decide about a directory as about a received study."""
    tags = {"RequestedProcedurePriority": "STAT", "CurrentPatientLocation": "ED"}
    dicom.study_dir(tmp_path, dicom.ct_series(n=2, **tags))
    facts = offline.read_directory(tmp_path).facts

    assert (facts.ordered_priority, facts.location, facts.station) == ("STAT", "ED", "SCANNER1")
    assert set(facts.texts) == {"CT HEAD", "AXIAL HEAD", "HEAD"}
    assert facts.age_years == pytest.approx(66.8, abs=0.1)


def _two_studies(folder: Path) -> None:
    dicom.study_dir(folder, dicom.ct_series(n=1), dicom.mr_series(n=1, patient="2"))


def _only_a_report(folder: Path) -> None:
    (path,) = dicom.save_all(dicom.ct_series(n=1), folder)
    ds = pydicom.dcmread(path)
    ds.Modality = "SR"
    dicom.save(ds, path)


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (lambda folder: folder.mkdir(), "no DICOM file below it"),
        (_two_studies, "holds 2 studies; give the directory of one study"),
        (_only_a_report, "no CT or MR series"),
    ],
)
def test_what_is_no_study_is_refused(
    tmp_path: Path, fill: Callable[[Path], None], said: str
) -> None:
    """With the reason and the mend."""
    fill(tmp_path / "in")

    with pytest.raises(OfflineError, match=said):
        offline.read_directory(tmp_path / "in")


def test_rules_choose_the_pack_and_an_order_overrides_them(tmp_path: Path, config: Config) -> None:
    """A skipped study is analysed only when somebody insists."""
    dicom.study_dir(tmp_path / "head", dicom.ct_series(n=1))
    dicom.study_dir(tmp_path / "knee", dicom.ct_series(n=1, StudyDescription="KNEE"))
    head = offline.read_directory(tmp_path / "head")
    knee = offline.read_directory(tmp_path / "knee")

    assert offline.choose_pack(head, config, None) == "head"
    assert offline.choose_pack(knee, config, "head") == "head"
    with pytest.raises(OfflineError, match="no pack reads knees; use --pack"):
        offline.choose_pack(knee, config, None)
    with pytest.raises(OfflineError, match="known: head"):
        offline.choose_pack(head, config, "tail")


def test_running_it_twice_gives_the_same_files(tmp_path: Path, config: Config) -> None:
    """The same study and pack: the same identifiers, so that files are replaced, not added."""
    dicom.study_dir(tmp_path / "in", dicom.ct_series(n=2))
    found = offline.read_directory(tmp_path / "in")
    names = []
    for _ in range(2):
        report = offline.analyse(
            found,
            config,
            "head",
            Engine(0.3),
            results.INSTALLATION,
            tmp_path / "out",
            lambda: rows.NOW,
        )
        names.append(sorted(path.name for path in (tmp_path / "out").iterdir()))

    assert names[0] == names[1]
    assert json.loads(json.dumps(report)) == json.loads(
        (tmp_path / "out" / "findings.json").read_text()
    )
    assert report["priority"]["level"] == "STAT"
    (finding,) = report["findings"]
    assert (finding["present"], finding["threshold"]) == (True, 0.2)

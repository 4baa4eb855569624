"""Earlier studies that only the archive holds: used when they are the patient's, else left out."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from factories import dicom, rows
from factories import outbox as make
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session, sessionmaker

from agent import prior_archive, prior_fetching, priors
from agent.errors import AnalysisError, AnalysisInterrupted, ConfigError, ExplanationYielded
from agent.prior_archive import Prior, PriorLeftOut, Wanted
from agent.prior_fetching import PriorStep
from db.models import Analysis, Event, Study
from db.queries import claims
from db.queries.claims import Claim
from db.states import StudyState
from dicom_nodes.errors import PeerUnavailable
from inference.findings import Findings
from inference.study import StudyInput

OWNER = "node/results"
WANTED = Wanted("PAT1", "HOSP", "2.25.1", "20260501")
PRIOR_UID = dicom.uid("prior")


def match(**values: Any) -> Dataset:
    """A study-level answer."""
    said = Dataset()
    given = {
        "PatientID": "PAT1",
        "IssuerOfPatientID": "HOSP",
        "StudyInstanceUID": PRIOR_UID,
        "StudyDate": "20260301",
        "StudyTime": "080000",
        "ModalitiesInStudy": ["MR", "SR"],
        **values,
    }
    dicom.set_tags(said, given)
    return said


class Archive:
    """Holds one study of two series; does before each instance what the test says."""

    def __init__(self, *found: Dataset, error: Exception | None = None, **tags: Any) -> None:
        self.found = list(found or [match()])
        self.error = error
        self.tags = {"IssuerOfPatientID": "HOSP", **tags}
        self.fetched = 0
        self.before: Callable[[], object] = lambda: None

    def studies(self, _patient_id: str, _until: str) -> list[Dataset]:
        """What was prepared, or the error."""
        if self.error:
            raise self.error
        return self.found

    def series(self, _study_uid: str) -> list[Dataset]:
        """Two to fetch, one that is not."""
        kinds = [("1.1", "MR"), ("1.2", "MR"), ("1.3", "SR")]
        said = [Dataset() for _ in kinds]
        for one, (uid, modality) in zip(said, kinds, strict=True):
            one.SeriesInstanceUID, one.Modality = uid, modality
        return said

    def fetch(self, study_uid: str, series_uid: str, take: Callable[[bytes], None]) -> None:
        """Two slices."""
        for ds in dicom.mr_series(2, 8, 8, study_uid=study_uid, key=series_uid, **self.tags):
            self.before()
            self.fetched += 1
            written = io.BytesIO()
            ds.save_as(written, enforce_file_format=True)
            take(written.getvalue())


class Model:
    """Finds a glioma of 0.5 in whatever it is shown; errors first."""

    def __init__(self, *errors: Exception, **values: Any) -> None:
        self.errors = list(errors)
        self.values = values
        self.given: list[StudyInput] = []
        self.mode = 0

    def analyse_aside(self, study: StudyInput, _pack: str, seconds: float) -> Findings:
        """The answer; remembers what it was given while the files are there."""
        assert seconds > 0
        if self.errors:
            raise self.errors.pop(0)
        self.given.append(study)
        files = [path for series in study.series for path in series.files]
        assert all(path.is_file() for path in files)
        self.mode = files[0].parent.stat().st_mode & 0o777
        return prima(0.5, **self.values)


def prima(score: float, **values: Any) -> Findings:
    """What a model with scores says."""
    glioma = dataclasses.replace(rows.finding("glioma", 0.5), score=score)
    return rows.findings(glioma, **values)


@pytest.fixture
def claimed(tmp_path: Path) -> tuple[sessionmaker[Session], Claim]:
    """A study of the patient, analysed and claimed for composing."""
    sessions = rows.sessions(tmp_path)
    with sessions.begin() as session:
        study = rows.study(
            session,
            state=StudyState.COMPOSING,
            patient_id="PAT1",
            study_date="20260501",
            modalities="MR",
        )
        rows.analysis(session, study, prima(1.75), pack="prima")
    with sessions.begin() as session:
        lease, now = dt.timedelta(minutes=5), make.Clock()()
        claim = claims.claim(session, [StudyState.COMPOSING], owner=OWNER, lease=lease, now=now)
    assert claim is not None
    return sessions, claim


Run = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def run(claimed: tuple[sessionmaker[Session], Claim], tmp_path: Path) -> Run:
    """Runs the step; gives the comparison's words and what the timeline says."""
    sessions, claim = claimed

    def work(archive: Archive, model: Model | None = None, **changes: Any) -> tuple[str, list[str]]:
        options: dict[str, Any] = {"low_water_bytes": 0, "timeout_s": 60.0, **changes}
        step = PriorStep(
            sessions=sessions,
            archive=archive,
            analyser=model or Model(),
            packs={"prima"},
            directory=tmp_path / "priors",
            clock=make.Clock(),
            **options,
        )
        step.run(claim, OWNER)
        assert list((tmp_path / "priors").glob("*")) == []
        with sessions() as session:
            study = session.get_one(Study, claim.study_id)
            row = session.execute(sa.select(Analysis).filter_by(study_id=study.id)).scalar_one()
            found = priors.compare(session, study, row)
            events = session.execute(sa.select(Event).filter_by(who="priors")).scalars()
            return found.text if found else "", [f"{e.kind}: {e.why}" for e in events]

    return work


def test_a_study_of_the_archive_is_read_compared_and_forgotten(run: Run, claimed: Any) -> None:
    """The change is told with its origin; the files lay in a private place; once is enough."""
    archive, model = Archive(), Model(ExplanationYielded("another study waited"))
    text, said = run(archive, model)
    assert text == (
        "Compared with the study of 2026-03-01 (fetched from the archive), same model: "
        "Glioma +1.2 (to +1.8)"
    )
    assert said == ["prior_read: prima: an earlier study was fetched from the archive and read"]
    (given,) = model.given
    assert [len(series.files) for series in given.series] == [2, 2]
    assert model.mode == 0o700
    run(archive, model)
    assert archive.fetched == 4
    sessions, _ = claimed
    with sessions() as session:
        (study,) = session.execute(sa.select(Study)).scalars()
        kept = json.loads(session.execute(sa.select(Analysis.findings)).scalar_one())
    assert set(kept[priors.ARCHIVED]) == {"date", "pack_digest", "scores"}
    assert Findings.from_json(json.dumps(kept)) == prima(1.75)
    assert study.state == StudyState.COMPOSING


@pytest.mark.parametrize(
    ("archive", "model", "changes", "words"),
    [
        (Archive(match(PatientID="PAT2")), Model(), {}, "another patient id or issuer"),
        (Archive(match(IssuerOfPatientID="ELSE")), Model(), {}, "another patient id or issuer"),
        (Archive(match(), IssuerOfPatientID="ELSE"), Model(), {}, "images that the archive sent"),
        (Archive(match(), PatientID="PAT2"), Model(), {}, "images that the archive sent"),
        (Archive(error=PeerUnavailable("pacs: gone")), Model(), {}, "pacs: gone"),
        (Archive(error=ValueError("Example^Patient")), Model(), {}, "ValueError at"),
        (Archive(), Model(), {"timeout_s": 0.0}, "no time left"),
        (Archive(), Model(), {"low_water_bytes": 1 << 60}, "low_water_mark_mb"),
        (Archive(), Model(*[ExplanationYielded("busy")] * 3), {}, "busy"),
        (Archive(), Model(AnalysisError("it died")), {}, "it died"),
        (Archive(), Model(status="failed", reason="too small"), {}, "too small"),
        (Archive(match(), SOPClassUID=dicom.CTImageStorage), Model(), {}, "0 MR series"),
    ],
)
def test_what_goes_wrong_costs_the_comparison_only(
    run: Run, archive: Archive, model: Model, changes: dict[str, Any], words: str
) -> None:
    """The timeline says why, in words without the patient; nothing is left on the disk."""
    text, (said,) = run(archive, model, **changes)
    assert text == ""
    assert said.startswith("prior_left_out: ")
    assert words in said
    assert "Example^Patient" not in said


def test_time_that_runs_out_while_images_come_ends_the_transfer(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one image more is taken."""
    now = [0.0]
    monkeypatch.setattr(prior_fetching.time, "monotonic", lambda: now[0])
    archive = Archive()
    archive.before = lambda: now.__setitem__(0, now[0] + 40)
    _, (said,) = run(archive)
    assert "no time left" in said
    assert archive.fetched == 2


def test_the_end_of_the_agent_gives_the_study_back(run: Run) -> None:
    """The step does not take the end for a failure."""
    with pytest.raises(AnalysisInterrupted):
        run(Archive(), Model(AnalysisInterrupted("stop")))


@pytest.mark.parametrize(
    "found",
    [
        [match(StudyDate="20260501")],
        [match(StudyDate="")],
        [match(ModalitiesInStudy="CT")],
        [match(StudyInstanceUID=WANTED.study_uid)],
        [],
    ],
)
def test_without_an_earlier_mr_study_nothing_is_fetched(found: Sequence[Dataset]) -> None:
    """Peers that ignore keys answer with the same day, other modalities, the study itself."""
    assert prior_archive.newest(found, WANTED) is None


def test_the_newest_study_of_this_very_patient_is_chosen() -> None:
    """Also where a newer one is another's; an issuer that is not said is left to the images."""
    found = [
        match(StudyDate="20250101"),
        match(StudyDate="20260401", PatientID="PAT2"),
        match(StudyDate="20260302", IssuerOfPatientID=None, StudyInstanceUID="2.25.9"),
    ]
    assert prior_archive.newest(found, WANTED) == Prior("2.25.9", "20260302")
    with pytest.raises(PriorLeftOut):
        prior_archive.newest(found[1:2], WANTED)
    assert not dataclasses.replace(WANTED, patient_id="P*").can_be_asked_for


def test_a_study_that_the_agent_has_read_itself_is_not_fetched(run: Run, claimed: Any) -> None:
    """Ours is as new as the archive's."""
    sessions, _ = claimed
    with sessions.begin() as session:
        ours = rows.study(session, patient_id="PAT1", study_date="20260301")
        rows.analysis(session, ours, prima(1.0), created_at=rows.minutes_ago(60))
    archive = Archive()
    text, said = run(archive)
    assert text.startswith("Compared with the study of 2026-03-01, same model: Glioma +0.8")
    assert (said, archive.fetched) == ([], 0)


def test_an_older_study_of_ours_gives_way_to_a_newer_one_of_the_archive(
    run: Run, claimed: Any
) -> None:
    """The newest is compared with, wherever it lies."""
    sessions, _ = claimed
    with sessions.begin() as session:
        ours = rows.study(session, patient_id="PAT1", study_date="20260201")
        rows.analysis(session, ours, prima(1.0), created_at=rows.minutes_ago(60))
    assert "2026-03-01 (fetched from the archive)" in run(Archive())[0]


def test_what_a_killed_agent_left_is_swept(tmp_path: Path) -> None:
    """Old directories go, one in use stays."""
    for name, age in (("old", 500), ("new", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.dcm").touch()
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    prior_fetching.sweep(tmp_path, older_than_s=240)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    prior_fetching.sweep(tmp_path / "none", older_than_s=240)


def test_an_archive_that_is_none_is_refused_at_load() -> None:
    """Unknown names, and destinations that are told and hold no images."""
    from agent import config

    hook = {"name": "hook", "kind": "hl7", "host": "127.0.0.1", "port": 1}
    for name, words in (("pacs", "priors.from names 'pacs'"), ("hook", "holds no images")):
        data: dict[str, Any] = {"destinations": [hook], "priors": {"from": name}}
        with pytest.raises(ConfigError, match=words):
            config.from_mapping(data, source="test")
    with pytest.raises(ConfigError, match="did you mean from"):
        config.from_mapping({"priors": {"fro": "x"}}, source="test")

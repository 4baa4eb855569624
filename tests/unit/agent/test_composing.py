"""The composing room: objects on disk, then rows and outbox in one commit; repeatable."""

from __future__ import annotations

import dataclasses
import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa
from factories import dicom, results, rows
from factories import outbox as make
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session, sessionmaker

from agent.composing import ComposingRoom
from agent.composition import Composition
from agent.errors import ComposeError
from agent.settings import PrioritySettings, ResultSettings
from db.engine import reading
from db.models import Analysis, Delivery, Result, Study
from db.models import Draft as DraftRow
from db.queries import claims, studies
from db.queries.claims import Claim
from db.states import StudyState
from inference.report.draft import ClinicalContext, Draft, Sentence, Source

OWNER = "node/rooms"


@dataclass
class Bench:
    """A study in the composing state, analysed, its images in the spool."""

    sessions: sessionmaker[Session]
    folder: Path
    study_id: int
    images: list[Dataset]
    clock: make.Clock = field(default_factory=make.Clock)
    more: dict[str, Any] = field(default_factory=dict)
    """Of the room, beside what every test needs."""

    def claim(self) -> Claim:
        """Take it."""
        with self.sessions.begin() as session:
            found = claims.claim(
                session,
                [StudyState.COMPOSING],
                owner=OWNER,
                lease=dt.timedelta(minutes=5),
                now=self.clock(),
            )
        assert found is not None
        return found

    def run(self, claim: Claim | None = None, **settings: Any) -> None:
        """Compose it for one destination that pushes."""
        room = ComposingRoom(self.sessions, self.composition(**settings), self.clock, **self.more)
        room.run(claim or self.claim(), OWNER)

    def composition(self, **settings: Any) -> Composition:
        """How this house composes."""
        return Composition(
            spool=self.folder / "spool",
            results=self.folder / "results",
            settings=ResultSettings(**{"kinds": ("sr", "sc"), **settings}),
            destinations=[make.destination()],
            installation=results.INSTALLATION,
            policy=PrioritySettings(),
        )

    def analyse(self, revision: int = 1, **values: Any) -> None:
        """Commit an analysis that found a bleed, and put the study into composing."""
        with self.sessions.begin() as session:
            study = session.get_one(Study, self.study_id)
            study.revision, study.state = revision, StudyState.COMPOSING
            said = rows.findings(
                study_uid=study.study_uid,
                series=(
                    rows.SeriesReport(
                        self.images[0].SeriesInstanceUID, "CT", "AXIAL HEAD", used=True, slices=4
                    ),
                ),
            )
            rows.analysis(session, study, said, **values)

    @property
    def study(self) -> Study:
        """As it is now."""
        with reading(self.sessions) as session:
            return studies.get(session, self.study_id)

    def all(self, model: Any) -> list[Any]:
        """Every row of a table."""
        with reading(self.sessions) as session:
            return list(session.execute(sa.select(model).order_by(model.id)).scalars())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """See `Bench`."""
    images = dicom.ct_series(n=4, rows=16, cols=16)
    dicom.save_all(images, tmp_path / "spool" / "ct")
    sessions = rows.sessions(tmp_path)
    with sessions.begin() as session:
        study = rows.study(session, study_uid=images[0].StudyInstanceUID)
        series = rows.series(session, study, series_uid=images[0].SeriesInstanceUID)
        for ds in images:
            rows.instance(
                session, series, sop_uid=ds.SOPInstanceUID, path=f"ct/{ds.SOPInstanceUID}.dcm"
            )
    made = Bench(sessions, tmp_path, study.id, images)
    made.analyse()
    return made


def test_objects_rows_and_outbox_are_there_together(bench: Bench) -> None:
    """One row and one delivery an object, its file readable under the recorded path."""
    bench.run()

    assert bench.study.state == "delivering"
    made, deliveries = bench.all(Result), bench.all(Delivery)
    assert [r.kind for r in made] == ["sr", "sc"]
    assert [(d.kind, d.state, d.subject) for d in deliveries] == [
        (r.kind, "pending", r.sop_uid) for r in made
    ]
    for row in made:
        ds = pydicom.dcmread(bench.folder / "results" / row.path)
        assert (ds.SOPInstanceUID, ds.SeriesInstanceUID) == (row.sop_uid, row.series_uid)
        assert ds.StudyInstanceUID == bench.study.study_uid
        assert row.size_bytes == (bench.folder / "results" / row.path).stat().st_size


def test_composing_again_changes_nothing(bench: Bench) -> None:
    """After a crash, or when an operator retries: the same objects, byte by byte, no row more."""
    bench.run()
    files = {p: p.read_bytes() for p in (bench.folder / "results").rglob("*.dcm")}
    before = [(r.id, r.sop_uid) for r in bench.all(Result)]
    with bench.sessions.begin() as session:
        study = session.get_one(Study, bench.study_id)
        study.state = StudyState.COMPOSING
    bench.clock.forward(minutes=10)
    bench.run()

    assert {p: p.read_bytes() for p in (bench.folder / "results").rglob("*.dcm")} == files
    assert [(r.id, r.sop_uid) for r in bench.all(Result)] == before
    assert len(bench.all(Delivery)) == len(before)


def test_lost_lease_commits_nothing(bench: Bench) -> None:
    """Somebody else composes: the files are the same, the rows are theirs."""
    claim = bench.claim()
    with bench.sessions.begin() as session:
        session.execute(sa.update(Study).values(lease_owner="other/rooms"))
    bench.run(claim)

    assert bench.study.state == "composing"
    assert bench.all(Result) == bench.all(Delivery) == []


def test_second_revision_names_the_report_it_replaces(bench: Bench) -> None:
    """The archive that holds the first is told; what of it was not sent is sent no more."""
    bench.run()
    with bench.sessions.begin() as session:
        arrived = sa.update(Delivery).where(Delivery.kind == "sr").values(state="delivered")
        session.execute(arrived)
    bench.analyse(revision=2)
    bench.run()
    first, second = (r for r in bench.all(Result) if r.kind == "sr")
    ds = pydicom.dcmread(bench.folder / "results" / second.path)

    (predecessor,) = ds.PredecessorDocumentsSequence
    (named,) = predecessor.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == first.sop_uid
    assert [d.state for d in bench.all(Delivery)] == [
        "delivered",
        "superseded",
        "pending",
        "pending",
    ]


def test_a_report_that_never_left_is_nobodys_predecessor(bench: Bench) -> None:
    """A reference to an object that no archive holds would lead its reader nowhere."""
    bench.run()
    bench.analyse(revision=2)
    bench.run()
    second = [r for r in bench.all(Result) if r.kind == "sr"][-1]

    ds = pydicom.dcmread(bench.folder / "results" / second.path)

    assert "PredecessorDocumentsSequence" not in ds


def test_shadow_analysis_ends_without_a_push(bench: Bench) -> None:
    """The objects are made, for whoever evaluates; the study is done."""
    with bench.sessions.begin() as session:
        session.execute(sa.update(Analysis).values(shadow=True))
    bench.run()

    assert bench.study.state == "done"
    assert {d.state for d in bench.all(Delivery)} == {"shadow"}


def test_revision_without_analysis_names_the_mend(bench: Bench) -> None:
    """It cannot happen; if it does, somebody reads what to do."""
    with bench.sessions.begin() as session:
        session.execute(sa.delete(Analysis))

    with pytest.raises(ComposeError, match="studies retry --reanalyse"):
        bench.run()


def test_failed_analysis_gets_its_report_too(bench: Bench) -> None:
    """The reader in the PACS sees that nobody looked, and why."""
    with bench.sessions.begin() as session:
        said = rows.findings(status=rows.Status.FAILED, reason="the model is away")
        said = dataclasses.replace(said, study_uid=bench.study.study_uid, findings=())
        values = {"status": "failed", "findings": said.to_json()}
        session.execute(sa.update(Analysis).values(**values))
    bench.run()

    assert [r.kind for r in bench.all(Result)] == ["sr", "sc"]
    (report,) = [r for r in bench.all(Result) if r.kind == "sr"]
    ds = pydicom.dcmread(bench.folder / "results" / report.path)
    assert "the model is away" in ds.to_json()


def test_each_pack_gets_objects_of_its_own_and_one_report_the_draft(bench: Bench) -> None:
    """Two reports of one revision, both stating the level of both; one carries the narrative."""
    _second_pack(bench, priority="LOW")
    bench.more = {"template": _template}
    bench.run()

    made = bench.all(Result)
    assert [r.kind for r in made] == ["sr", "sc", "sr", "sc"]
    assert len({r.analysis_id for r in made}) == 2
    assert [d.state for d in bench.all(Delivery)] == ["pending"] * 4
    texts = [_report(bench, r) for r in made if r.kind == "sr"]
    assert all("opinions differ" not in text and "Read immediately" in text for text in texts)
    assert sum("UNVERIFIED DRAFT" in text for text in texts) == 1
    (draft,) = bench.all(DraftRow)
    assert (draft.state, draft.source, draft.revision) == ("done", "template", 1)


def test_shadow_pack_beside_a_live_one_keeps_the_study_delivering(bench: Bench) -> None:
    """What is only recorded must not end the delivery of what is sent."""
    _second_pack(bench, shadow=True)
    bench.run()

    assert bench.study.state == "delivering"
    states = {d.analysis_id: d.state for d in bench.all(Delivery)}
    assert sorted(states.values()) == ["pending", "shadow"]


def test_second_revision_of_two_packs_names_each_predecessor_once(bench: Bench) -> None:
    """A pack replaces its own report; the first one replaces that of a pack that is gone."""
    _second_pack(bench)
    bench.run()
    with bench.sessions.begin() as session:
        session.execute(sa.update(Delivery).values(state="delivered"))
    bench.analyse(revision=2)
    bench.run()
    reports = [r for r in bench.all(Result) if r.kind == "sr"]

    ds = pydicom.dcmread(bench.folder / "results" / reports[-1].path)
    named = [
        one.ReferencedSOPInstanceUID
        for study in ds.PredecessorDocumentsSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    ]
    assert sorted(named) == sorted(r.sop_uid for r in reports[:2])


def test_draft_waits_for_the_model_and_delivery_does_not(bench: Bench) -> None:
    """The template's words go out now; the row asks for a model's."""
    bench.more = {"template": _template, "model_follows": True}
    bench.run()

    (draft,) = bench.all(DraftRow)
    assert (bench.study.state, draft.state, draft.source) == ("delivering", "waiting", "template")


def test_new_revision_ends_the_draft_of_the_old_one(bench: Bench) -> None:
    """Nobody writes about images that are not all."""
    bench.more = {"template": _template, "model_follows": True}
    bench.run()
    bench.analyse(revision=2)
    bench.run()

    assert [d.state for d in bench.all(DraftRow)] == ["superseded", "waiting"]


def _second_pack(bench: Bench, **values: Any) -> None:
    with bench.sessions.begin() as session:
        study = session.get_one(Study, bench.study_id)
        study.pack = "demo-head, second"
        first = session.execute(sa.select(Analysis)).scalar_one()
        rows.analysis(
            session,
            study,
            rows.Findings.from_json(first.findings),
            **{"id": "f" * 32, "pack": "second", "created_at": rows.minutes_ago(8), **values},
        )


def _template(_findings: Any, context: ClinicalContext) -> Draft:
    return Draft(context.modality, (Sentence("A bleed."),), Source.TEMPLATE, "template")


def _report(bench: Bench, row: Result) -> str:
    return pydicom.dcmread(bench.folder / "results" / row.path).to_json()

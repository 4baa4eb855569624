"""A provisional priority: from the first usable series, while the study stays what it is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa
from factories import dicom, results, rows
from factories import outbox as make
from sqlalchemy.orm import Session, sessionmaker

from agent.analysis.provisional import ProvisionalRoom
from agent.assembly import sweep
from agent.composition import Composition
from agent.errors import AnalysisError
from agent.settings import (
    AssemblySettings,
    Match,
    PackSettings,
    PrioritySettings,
    ResultSettings,
    RoutingRule,
    RoutingSettings,
)
from db.engine import reading
from db.models import Analysis, Delivery, Event, Instance, Result, Series, Study
from db.queries import reports, studies
from db.states import StudyState
from inference.findings import Findings, Status
from inference.study import StudyInput

OWNER = "node/provisional"
Answer = Callable[[StudyInput], Findings]


@dataclass
class House:
    """An emergency CT of which a scout and the first axial series are here."""

    sessions: sessionmaker[Session]
    folder: Path
    study_id: int
    clock: make.Clock = field(default_factory=make.Clock)
    asked: list[StudyInput] = field(default_factory=list)

    def analyse(self, given: StudyInput, _pack: str) -> Findings:
        """The model."""
        self.asked.append(given)
        return self.answer(given)

    answer: Answer = lambda given: rows.findings(study_uid=given.study_uid)

    def look(self, when: tuple[Match, ...] = (Match(ordered_priority="STAT"),)) -> bool:
        """Let the provisional worker look once."""
        room = ProvisionalRoom(
            sessions=self.sessions,
            composition=Composition(
                spool=self.folder / "spool",
                results=self.folder / "results",
                settings=ResultSettings(kinds=("sr", "sc")),
                destinations=[make.destination()],
                installation=results.INSTALLATION,
                policy=PrioritySettings(),
            ),
            analyser=self,
            assembly=AssemblySettings(provisional=when, provisional_min_images=3),
            routing=RoutingSettings(rules=(RoutingRule(name="all", pack="demo-head"),)),
            packs={"demo-head": PackSettings(path=self.folder, shadow=False)},
            policy=PrioritySettings(),
            clock=self.clock,
            lease=dt.timedelta(minutes=5),
            min_series={},
        )
        return room.run_once(OWNER)

    def all(self, model: Any) -> list[Any]:
        """Every row of a table."""
        with reading(self.sessions) as session:
            return list(session.execute(sa.select(model)).scalars())

    def set(self, statement: Any) -> None:
        """Change rows."""
        with self.sessions.begin() as session:
            session.execute(statement)

    @property
    def study(self) -> Study:
        """As it is now."""
        with reading(self.sessions) as session:
            return studies.get(session, self.study_id)


@pytest.fixture
def house(tmp_path: Path) -> House:
    """See `House`."""
    images = dicom.ct_series(n=4, rows=16, cols=16)
    dicom.save_all(images, tmp_path / "spool" / "ct")
    sessions = rows.sessions(tmp_path)
    with sessions.begin() as session:
        study = rows.study(
            session,
            study_uid=images[0].StudyInstanceUID,
            state=StudyState.RECEIVING,
            revision=0,
            ordered_priority="STAT",
            instance_count=5,
        )
        study.priority, study.priority_rank = "", 100
        scout = rows.series(session, study, description="SCOUT")
        rows.instance(session, scout, path="scout.dcm")
        axial = rows.series(session, study, series_uid=images[0].SeriesInstanceUID)
        for ds in images:
            path = f"ct/{ds.SOPInstanceUID}.dcm"
            rows.instance(session, axial, sop_uid=ds.SOPInstanceUID, path=path)
    return House(sessions, tmp_path, study.id)


def test_first_usable_series_gives_a_priority_while_the_study_arrives(house: House) -> None:
    """The worklist moves, a provisional report is on its way, the study is still receiving."""
    house.set(sa.update(Study).values(ordered_priority="HIGH"))
    assert house.look(when=(Match(ordered_priority="HIGH"),))

    study, (analysis,) = house.study, house.all(Analysis)
    assert (study.state, study.revision, study.lease_owner) == ("receiving", 0, None)
    assert study.priority == "STAT"
    assert (analysis.provisional, analysis.revision) == (True, 0)
    assert [len(series.files) for series in house.asked[0].series] == [4]
    assert [r.kind for r in house.all(Result)] == ["sr"]
    assert [d.state for d in house.all(Delivery)] == ["pending"]
    report = pydicom.dcmread(house.folder / "results" / house.all(Result)[0].path)
    assert report.CompletionFlag == "PARTIAL"
    assert house.look(when=(Match(ordered_priority="HIGH"),)) is False


def test_only_studies_that_the_site_named_are_looked_at(house: House) -> None:
    """Everybody else waits for the whole study, as without it."""
    assert house.look(when=()) is False
    assert house.look(when=(Match(location="ICU"),)) is False
    assert house.asked == []


def test_series_that_still_arrives_is_waited_for(house: House) -> None:
    """Half a series is no series; a scout is too short to be one."""
    house.set(sa.update(Instance).values(received_at=house.clock()))
    assert house.look() is False

    house.clock.forward(seconds=6)
    assert house.look() is True


def test_priority_is_never_below_the_order(house: House) -> None:
    """Nothing found in the first series of a STAT order leaves it STAT."""
    house.answer = lambda given: rows.findings(
        rows.finding(probability=0.1), study_uid=given.study_uid
    )
    house.look()

    assert house.study.priority == "STAT"


def test_unusable_series_is_not_tried_twice_but_the_next_one_is(house: House) -> None:
    """No silent loop over the same images, and no loss of a later series."""
    house.answer = lambda given: rows.findings(
        study_uid=given.study_uid, status=Status.NOT_ATTEMPTED, reason="no usable geometry"
    )
    assert house.look() is True
    assert house.look() is False
    assert house.all(Analysis) == []
    assert any("no usable geometry" in e.why for e in house.all(Event))

    house.answer = lambda given: rows.findings(study_uid=given.study_uid)
    house.set(sa.update(Series).where(Series.description == "SCOUT").values(description="AXIAL 2"))
    with house.sessions.begin() as session:
        late = rows.series(session, session.get_one(Study, house.study_id))
        for number in range(3):
            rows.instance(session, late, path=f"late/{number}.dcm")
    assert house.look() is True
    assert len(house.all(Analysis)) == 1


def test_fault_of_the_model_leaves_the_study_to_its_full_analysis(house: House) -> None:
    """Nothing fails, nothing is retried for ever; the study goes its way."""

    def dies(_given: StudyInput) -> Findings:
        raise AnalysisError("the process died")

    house.answer = dies
    house.look()

    assert (house.study.state, house.study.lease_owner) == ("receiving", None)
    assert house.look() is False


def test_study_that_became_complete_meanwhile_takes_nothing_provisional(house: House) -> None:
    """Its full analysis comes now; the answer of the first series is dropped."""

    def slow(given: StudyInput) -> Findings:
        with house.sessions.begin() as session:
            sweep.assemble(session, studies.get(session, house.study_id), "quiet", house.clock())
        return rows.findings(study_uid=given.study_uid)

    house.answer = slow
    house.look()

    assert house.all(Analysis) == house.all(Result) == []
    assert (house.study.state, house.study.revision) == ("assembled", 1)


def test_crash_between_analysis_and_report_is_made_good(house: House) -> None:
    """The priority was committed; the next life composes without asking the model again."""
    with pytest.MonkeyPatch.context() as armed:
        armed.setattr(ProvisionalRoom, "_compose", lambda *_: None)
        house.look()
    assert house.all(Result) == []
    house.look()

    assert len(house.asked) == len(house.all(Result)) == 1


def test_full_report_names_the_provisional_one(house: House) -> None:
    """Where the archive has it: the first revision's report replaces it."""
    house.look()
    house.set(sa.update(Delivery).values(state="delivered"))
    with house.sessions.begin() as session:
        study = studies.get(session, house.study_id)
        sweep.assemble(session, study, "quiet", house.clock())
        full = rows.analysis(session, study, priority="LOW")
        assert study.revision == 1
        assert reports.predecessors(session, full, ()) == [house.all(Result)[0].path]

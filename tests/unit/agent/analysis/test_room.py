"""The analysis room: findings and priority are committed together, or neither is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from factories import outbox as make
from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from agent.analysis import room as rooms
from agent.analysis.room import AnalysisRoom, PackGone
from agent.errors import AnalysisError, AnalysisInterrupted
from agent.settings import PackSettings, PrioritySettings
from db.engine import reading
from db.models import Analysis, Event, Study
from db.queries import claims, studies
from db.states import StudyState
from inference.findings import Acuity, Findings, SeriesReport, Status
from inference.study import StudyInput

OWNER = "node/model"


@dataclass
class Analyser:
    """A model that is a function."""

    answer: Callable[[StudyInput], Findings]
    asked: list[StudyInput] = field(default_factory=list)

    def analyse(self, study: StudyInput, _pack: str) -> Findings:
        """Answer as told."""
        self.asked.append(study)
        return self.answer(study)


@dataclass
class Bench:
    """A queued study with an axial CT, a scout report and one of our own results."""

    sessions: sessionmaker[Session]
    spool: Path
    study_id: int
    clock: make.Clock = field(default_factory=make.Clock)
    waited: list[float] = field(default_factory=list)

    def run(
        self,
        answer: Callable[[StudyInput], Findings],
        *,
        attempts: int = 1,
        before: Callable[[Session], object] = lambda _s: None,
        **pack: Any,
    ) -> Analyser:
        """Claim the study (for the n-th time) and run the room on it."""
        analyser = Analyser(answer)
        room = AnalysisRoom(
            sessions=self.sessions,
            spool=self.spool,
            analyser=analyser,
            packs={"demo-head": PackSettings(path=self.spool, **{"shadow": False, **pack})},
            pack_refs={"demo-head": rows.PACK},
            policy=PrioritySettings(),
            max_attempts=3,
            clock=self.clock,
            observe=self.waited.append,
        )
        with self.sessions.begin() as session:
            claim = claims.claim(
                session,
                [StudyState.QUEUED],
                owner=OWNER,
                lease=dt.timedelta(minutes=5),
                now=self.clock(),
            )
            assert claim is not None
            before(session)
        room.run(claims.Claim(claim.study_id, claim.key, claim.state, attempts), OWNER)
        return analyser

    @property
    def study(self) -> Study:
        """The study as it is now."""
        with reading(self.sessions) as session:
            return studies.get(session, self.study_id)

    @property
    def analyses(self) -> list[Analysis]:
        """What was committed."""
        with reading(self.sessions) as session:
            return list(studies.analyses(session, self.study_id))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """See `Bench`."""
    sessions = rows.sessions(tmp_path)
    with sessions.begin() as session:
        study = rows.study(session, state=StudyState.QUEUED, ordered_priority="ROUTINE")
        axial = rows.series(session, study, series_uid="2.25.1")
        rows.instance(session, axial, path="a/1.dcm", sop_uid="2.25.11")
        rows.instance(session, axial, path="a/2.dcm", sop_uid="2.25.12")
        rows.instance(session, axial, path="a/2.v1.dcm", sop_uid="2.25.12", version=1)
        dose = rows.series(session, study, series_uid="2.25.2", modality="SR")
        rows.instance(session, dose, path="b/1.dcm")
        own = rows.series(session, study, series_uid="2.25.3", modality="SEG", own_result=True)
        rows.instance(session, own, path="c/1.dcm")
    return Bench(sessions, tmp_path / "spool", study.id)


def _bleed(_study: StudyInput, probability: float = 0.9) -> Findings:
    return rows.findings(
        rows.finding(probability=probability),
        series=(SeriesReport("2.25.1", "CT", "AXIAL HEAD", used=True, slices=2),),
    )


def _raising(error: Exception) -> Callable[[StudyInput], Findings]:
    def answer(_study: StudyInput) -> Findings:
        raise error

    return answer


def test_findings_priority_and_state_are_one_commit(bench: Bench) -> None:
    """The worklist moves with the analysis; the metrics hear how long the patient waited."""
    bench.run(_bleed)

    study, (analysis,) = bench.study, bench.analyses
    assert (study.state, study.priority, study.priority_rank) == ("composing", "STAT", 0)
    assert (analysis.revision, analysis.status, analysis.priority) == (1, "succeeded", "STAT")
    assert Findings.from_json(analysis.findings).positives[0].label == rows.HEMORRHAGE
    assert bench.waited == [(bench.clock() - study.last_instance_at).total_seconds()]


def test_model_gets_the_newest_version_of_what_it_may_read(bench: Bench) -> None:
    """No dose report, no result of ours, and of two versions the later."""
    (given,) = bench.run(_bleed).asked

    assert given.modality == "CT"
    (series,) = given.series
    assert [str(p.relative_to(bench.spool)) for p in series.files] == ["a/1.dcm", "a/2.v1.dcm"]


def test_every_series_gets_its_reason(bench: Bench) -> None:
    """The reader sees why a series was not analysed."""
    bench.run(_bleed)

    reasons = {s.series_uid: s.reason for s in bench.study.series}
    assert reasons["2.25.1"] == ""
    assert "SR" in reasons["2.25.2"]
    assert reasons["2.25.3"] == "a result of this agent"


def test_site_threshold_replaces_the_packs(bench: Bench) -> None:
    """Raised above the probability, the finding no longer counts, and the level follows."""
    bench.run(_bleed, thresholds={rows.HEMORRHAGE: 0.95})

    assert bench.study.priority == "LOW"
    assert Findings.from_json(bench.analyses[0].findings).positives == ()


def test_shadow_mode_records_the_model_and_keeps_the_order(bench: Bench) -> None:
    """The worklist does not know what the model said."""
    bench.run(_bleed, shadow=True)

    study, (analysis,) = bench.study, bench.analyses
    assert (study.priority, study.priority_score) == ("LOW", 0.0)
    assert study.priority_reason == "ordered priority"
    assert (analysis.shadow, analysis.priority) == (True, "STAT")
    with reading(bench.sessions) as session:
        whys = list(session.execute(sa.select(Event.why).filter_by(kind="priority_set")).scalars())
    assert "shadow mode" in whys[0]


def test_passing_fault_is_the_workers_business(bench: Bench) -> None:
    """Before the last attempt nothing is committed."""
    with pytest.raises(AnalysisError):
        bench.run(_raising(AnalysisError("died")), attempts=2)

    assert (bench.study.state, bench.analyses) == ("analysing", [])


def test_last_failure_is_a_result_that_the_reader_sees(bench: Bench) -> None:
    """No silence: a failed analysis with its reason, and a level that is no negative."""
    bench.run(_raising(AnalysisError("died")), attempts=3)

    study, (analysis,) = bench.study, bench.analyses
    assert (study.state, analysis.status) == ("composing", Status.FAILED)
    assert "gave up after 3 attempts" in Findings.from_json(analysis.findings).reason
    assert study.priority == "MEDIUM"


def test_interruption_is_never_a_result(bench: Bench) -> None:
    """A stop during the last attempt commits no failure."""
    with pytest.raises(AnalysisInterrupted):
        bench.run(_raising(AnalysisInterrupted("stops")), attempts=3)

    assert bench.analyses == []


def test_lost_lease_discards_the_answer(bench: Bench) -> None:
    """Somebody else has the study: two analyses of one revision would contradict each other."""

    def lost(study: StudyInput) -> Findings:
        with bench.sessions.begin() as session:
            session.execute(sa.update(Study).values(lease_owner="other/model"))
        return _bleed(study)

    bench.run(lost)

    assert (bench.study.state, bench.analyses, bench.waited) == ("analysing", [], [])


def test_pack_that_left_the_configuration_says_so(bench: Bench) -> None:
    """The operator reads what to mend; no attempt is wasted on it."""

    def renamed(session: Session) -> None:
        session.execute(sa.update(Study).values(pack="old-head"))

    with pytest.raises(PackGone, match="'old-head' is not configured any more") as caught:
        bench.run(_bleed, before=renamed)

    assert caught.value.permanent


def test_order_is_never_lowered(bench: Bench) -> None:
    """A normal study that was ordered STAT stays STAT."""

    def ordered(session: Session) -> None:
        session.execute(sa.update(Study).values(ordered_priority="STAT"))

    bench.run(lambda study: _bleed(study, 0.01), before=ordered)

    assert bench.study.priority == "STAT"


def test_study_without_images_is_still_asked_about(bench: Bench) -> None:
    """The engine says why there is nothing to read; no modality is invented."""

    def only_dose(session: Session) -> None:
        session.execute(sa.text("update series set modality = 'SR'"))

    (given,) = bench.run(
        lambda _s: rows.findings(status=Status.NOT_ATTEMPTED, reason="no image series"),
        before=only_dose,
    ).asked

    assert (given.modality, given.series) == ("", ())


def test_with_thresholds_leaves_other_labels_alone() -> None:
    """Only the labels the site names change."""
    found = rows.findings(rows.finding("a", 0.6), rows.finding("b", 0.6, acuity=Acuity.ROUTINE))
    changed = rooms.with_thresholds(found, {"a": 0.7})

    assert [(f.label, f.threshold) for f in changed.findings] == [("a", 0.7), ("b", 0.5)]
    assert rooms.with_thresholds(found, {}) is found

"""One study, several packs; several studies, one run: each answer is committed as it comes."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from factories import outbox as make
from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from agent.analysis.room import AnalysisRoom, with_thresholds
from agent.errors import AnalysisError, AnalysisInterrupted
from agent.rooms import flow
from agent.settings import PackSettings, PrioritySettings
from agent.worker import Worker, WorkerSettings
from db.engine import reading
from db.models import Analysis, Event, Study
from db.queries import studies
from db.states import StudyState
from inference.findings import Findings, Status
from inference.study import StudyInput

Answer = Callable[[StudyInput, str], Findings]


@dataclass
class Models:
    """Models that are a function of study and pack."""

    answer: Answer
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def analyse(self, study: StudyInput, pack: str) -> Findings:
        """One study."""
        self.asked.append((pack, study.study_uid))
        return self.answer(study, pack)

    def analyse_many(self, given: Sequence[StudyInput], pack: str) -> list[Findings]:
        """Several studies together."""
        self.asked.append((pack, *(study.study_uid for study in given)))
        return [self.answer(study, pack) for study in given]


@dataclass
class House:
    """Queued studies, and a worker in the analysis room."""

    sessions: sessionmaker[Session]
    folder: Path
    clock: make.Clock = field(default_factory=make.Clock)
    told: list[str] = field(default_factory=list)

    def queue(self, *packs: str, series: int = 1, **values: Any) -> int:
        """A study that routing gave to these packs."""
        with self.sessions.begin() as session:
            study = rows.study(session, state=StudyState.QUEUED, pack=", ".join(packs), **values)
            for number in range(series):
                one = rows.series(session, study, modality="MR")
                rows.instance(session, one, path=f"{study.id}/{number}.dcm")
            return study.id

    def worker(
        self, answer: Answer, *, batch: int = 1, shadow: Sequence[str] = ()
    ) -> tuple[Worker, Models]:
        """A worker that asks these models."""
        models = Models(answer)
        names = ("head", "prima")
        room = AnalysisRoom(
            sessions=self.sessions,
            spool=self.folder,
            analyser=models,
            packs={n: PackSettings(path=self.folder, shadow=n in shadow) for n in names},
            pack_refs=dict.fromkeys(names, rows.PACK),
            policy=PrioritySettings(),
            max_attempts=3,
            clock=self.clock,
            min_series={"prima": 2},
            tell=lambda _s, _study, analysis, _now: self.told.append(analysis.pack),
        )
        nothing = lambda _claim, _owner: None  # noqa: E731
        rooms = flow(nothing, room.run, nothing, room.run_many, batch)
        settings = WorkerSettings("node/model", dt.timedelta(minutes=5), 3)
        return Worker([rooms[1]], self.sessions, settings, self.clock), models

    def study(self, study_id: int) -> Study:
        """As it is now."""
        with reading(self.sessions) as session:
            return studies.get(session, study_id)

    def analyses(self, study_id: int) -> list[Analysis]:
        """What was committed, by pack (the clock of a test stands still)."""
        with reading(self.sessions) as session:
            return sorted(studies.analyses(session, study_id), key=lambda row: row.pack)

    def whys(self, kind: str) -> list[str]:
        """What the timeline says."""
        with reading(self.sessions) as session:
            query = sa.select(Event.why).filter_by(kind=kind).order_by(Event.id)
            return list(session.execute(query).scalars())


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Nobody waits yet."""
    return House(rows.sessions(tmp_path), tmp_path)


def says(**probabilities: float) -> Answer:
    """A bleed with this probability, by pack."""

    def answer(study: StudyInput, pack: str) -> Findings:
        found = rows.finding(probability=probabilities[pack])
        return rows.findings(found, study_uid=study.study_uid)

    return answer


def test_every_pack_gets_its_analysis_and_the_most_urgent_decides(house: House) -> None:
    """Two rows of one revision; the level is the worse of both, the difference is told."""
    study_id = house.queue("head", "prima", series=2)
    worker, models = house.worker(says(head=0.1, prima=0.9))
    worker.run_once()

    study = house.study(study_id)
    assert [pack for pack, _ in models.asked] == ["head", "prima"] == house.told
    assert [(a.pack, a.priority) for a in house.analyses(study_id)] == [
        ("head", "LOW"),
        ("prima", "STAT"),
    ]
    assert (study.state, study.priority) == ("composing", "STAT")
    told = study.priority_reason.partition("opinions differ: ")[2]
    assert set(told.strip(")").split(", ")) == {"findings of head: LOW", "findings of prima: STAT"}


def test_first_urgent_answer_moves_the_worklist_while_the_other_pack_works(house: House) -> None:
    """Priority first: the reader does not wait for the second model."""
    study_id = house.queue("head", "prima", series=2)
    seen = []

    def answer(study: StudyInput, pack: str) -> Findings:
        seen.append((house.study(study_id).state, house.study(study_id).priority))
        return says(head=0.9, prima=0.1)(study, pack)

    house.worker(answer)[0].run_once()

    assert seen == [("analysing", ""), ("analysing", "STAT")]


def test_level_falls_only_when_all_packs_have_spoken(house: House) -> None:
    """Late images: the last revision's STAT stays until the last pack agrees that it is over."""
    study_id = house.queue("head", "prima", series=2, priority="STAT", revision=2)
    seen = []

    def answer(study: StudyInput, pack: str) -> Findings:
        seen.append(house.study(study_id).priority)
        return says(head=0.1, prima=0.1)(study, pack)

    house.worker(answer)[0].run_once()

    assert seen == ["STAT", "STAT"]
    assert house.study(study_id).priority == "LOW"
    assert "stays STAT until everything was analysed" in house.whys("priority_set")[0]


def test_after_a_crash_only_the_missing_pack_is_asked(house: House) -> None:
    """What the first pack said is on record; its attempts are not the second one's."""
    study_id = house.queue("head", "prima", series=2)

    def dies(study: StudyInput, pack: str) -> Findings:
        if pack == "prima":
            raise AnalysisError("the process died")
        return says(head=0.9)(study, pack)

    house.worker(dies)[0].run_once()
    assert (house.study(study_id).state, house.study(study_id).attempts) == ("queued", 1)
    house.clock.forward(minutes=10)
    worker, models = house.worker(says(prima=0.1))
    worker.run_once()

    assert [pack for pack, _ in models.asked] == ["prima"]
    assert [a.pack for a in house.analyses(study_id)] == ["head", "prima"]
    assert house.study(study_id).state == "composing"


def test_pack_that_needs_more_series_says_so_and_does_not_run(house: House) -> None:
    """Prima reads a study of two series or more; the other pack's word stands."""
    study_id = house.queue("head", "prima", series=1)
    worker, models = house.worker(says(head=0.1))
    worker.run_once()

    _, prima = house.analyses(study_id)
    assert prima.status == Status.NOT_ATTEMPTED
    assert "needs 2 image series, 1 received" in Findings.from_json(prima.findings).reason
    assert [pack for pack, _ in models.asked] == ["head"]
    assert house.study(study_id).priority == "LOW"


def test_pack_in_shadow_mode_is_recorded_and_not_heard(house: House) -> None:
    """The live pack decides alone."""
    study_id = house.queue("head", "prima", series=2)
    house.worker(says(head=0.1, prima=0.9), shadow=["prima"])[0].run_once()

    assert [(a.priority, a.shadow) for a in house.analyses(study_id)] == [
        ("LOW", False),
        ("STAT", True),
    ]
    study = house.study(study_id)
    assert (study.priority, study.priority_reason) == ("LOW", "no finding above its threshold")


def test_waiting_studies_go_to_the_model_together(house: House) -> None:
    """Most urgent first, only those for the same packs, no more than the batch holds."""
    first, second, third = (house.queue("head") for _ in range(3))
    other = house.queue("prima", series=2)
    worker, models = house.worker(says(head=0.9, prima=0.1), batch=2)
    worker.run_once()

    assert len(models.asked) == 1
    assert [house.study(i).state for i in (first, second, third, other)] == [
        "composing",
        "composing",
        "queued",
        "queued",
    ]
    assert house.study(first).lease_owner is None


def test_study_ordered_stat_goes_alone(house: House) -> None:
    """It would have to wait until its neighbors are read."""
    house.queue("head")
    urgent = house.queue("head", ordered_priority="STAT")
    worker, models = house.worker(says(head=0.1), batch=4)
    worker.run_once()

    assert models.asked == [("head", house.study(urgent).study_uid)]


def test_study_that_kills_the_model_does_not_take_its_neighbors_along(house: House) -> None:
    """The batch dies; then each is asked alone, and only the culprit is tried again."""
    good, bad = house.queue("head"), house.queue("head")
    uid = house.study(bad).study_uid

    def answer(study: StudyInput, pack: str) -> Findings:
        if study.study_uid == uid:
            raise AnalysisError("the process died")
        return says(head=0.9)(study, pack)

    house.worker(answer, batch=2)[0].run_once()

    assert [house.study(i).state for i in (good, bad)] == ["composing", "queued"]
    assert house.study(bad).attempts == 1


def test_interrupted_batch_is_given_back_whole(house: House) -> None:
    """A stop costs nobody an attempt."""
    ids = [house.queue("head") for _ in range(2)]

    def stops(_study: StudyInput, _pack: str) -> Findings:
        raise AnalysisInterrupted("the agent stops")

    house.worker(stops, batch=2)[0].run_once()

    assert [(house.study(i).state, house.study(i).attempts) for i in ids] == [("queued", 0)] * 2


def test_site_threshold_takes_the_place_of_the_models_own_score() -> None:
    """Where a pack publishes scores, a site's probability still has the last word."""
    said = rows.findings(dataclasses.replace(rows.finding("tumor", 0.6), score=0.4))
    changed = with_thresholds(said, {"tumor": 0.7})

    assert said.positives
    assert changed.positives == ()

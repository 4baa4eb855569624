"""Drafts beside the flow: a dead model delays only its draft, a crash goes on where it was."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import sqlalchemy as sa
from factories import dicom, results, rows
from factories import outbox as make
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session, sessionmaker

from agent.composing import ComposingRoom
from agent.composition import Composition
from agent.drafting.room import DraftingRoom
from agent.drafting.worker import DraftingSettings, DraftingWorker
from agent.errors import AnalysisInterrupted
from agent.settings import PrioritySettings, ResultSettings
from db.engine import reading
from db.models import Delivery, Event, Result, Study
from db.models import Draft as DraftRow
from db.queries import claims, drafts, studies
from db.states import StudyState
from inference.findings import Acuity
from inference.report.draft import ClinicalContext, Draft, Sentence, Source, Triage
from inference.report.errors import DraftError
from inference.report.tokens import VisualTokens

LEASE = dt.timedelta(minutes=5)


class Killed(BaseException):
    """The process dies here; nothing catches it."""


def written(text: str = "Hemorrhage of the left hemisphere.") -> Draft:
    """What a language model writes."""
    label = (rows.HEMORRHAGE,)
    return Draft("CT head", (Sentence(text, labels=label),), Source.MODEL, "tiny 1", seconds=0.5)


@dataclass
class Writers:
    """Encoder, language model and reasoning model, each a function; and what they were asked."""

    draft: Callable[[], Draft] = written
    triage: Callable[[], Triage] | None = None
    asked: list[Any] = field(default_factory=list)

    def visual_tokens(self, _study: Any, pack: str) -> VisualTokens:
        """The encoder."""
        self.asked.append(pack)
        return VisualTokens(("2.25.1",), np.zeros((1, 2, 4), dtype=np.float32))

    def reason(self, _draft: Draft, _context: ClinicalContext, identifiers: Any) -> Triage:
        """The reasoning model."""
        self.asked.append(list(identifiers))
        assert self.triage is not None
        return self.triage()


@dataclass
class _Drafter:
    writers: Writers

    def draft(self, _tokens: VisualTokens, context: ClinicalContext, priority_rank: int) -> Draft:
        self.writers.asked.append((context, priority_rank))
        return self.writers.draft()


@dataclass
class House:
    """A study that is composed and waits for its draft."""

    sessions: sessionmaker[Session]
    composition: Composition
    study_id: int
    clock: make.Clock = field(default_factory=make.Clock)
    told: list[str] = field(default_factory=list)

    def work(self, writers: Writers, **more: Any) -> bool:
        """Let a drafting worker look once."""
        room = DraftingRoom(
            sessions=self.sessions,
            composition=self.composition,
            encoder=writers,
            clock=self.clock,
            pack="findings",
            **{
                "drafter": _Drafter(writers),
                "triager": writers.reason if writers.triage else None,
                "tell_report": lambda *_: self.told.append("report"),
                "tell_priority": lambda *_: self.told.append("priority"),
                **more,
            },
        )
        settings = DraftingSettings("node/draft0", LEASE)
        return DraftingWorker(room.run, self.sessions, settings, self.clock).run_once()

    def all(self, model: Any) -> list[Any]:
        """Every row of a table."""
        with reading(self.sessions) as session:
            return list(session.execute(sa.select(model).order_by(model.id)).scalars())

    def set(self, statement: Any) -> None:
        """Change rows."""
        with self.sessions.begin() as session:
            session.execute(statement)

    @property
    def row(self) -> DraftRow:
        """The draft."""
        (found,) = self.all(DraftRow)
        return found

    @property
    def study(self) -> Study:
        """The study."""
        with reading(self.sessions) as session:
            return studies.get(session, self.study_id)

    @property
    def reports(self) -> list[Dataset]:
        """Every SR that was made, in order."""
        made = [r for r in self.all(Result) if r.kind == "sr"]
        return [pydicom.dcmread(self.composition.results / r.path) for r in made]


@pytest.fixture
def house(tmp_path: Path) -> House:
    """See `House`."""
    images = dicom.ct_series(n=3, rows=16, cols=16)
    dicom.save_all(images, tmp_path / "spool" / "ct")
    sessions = rows.sessions(tmp_path)
    composition = Composition(
        spool=tmp_path / "spool",
        results=tmp_path / "results",
        settings=ResultSettings(kinds=("sr",)),
        destinations=[make.destination()],
        installation=results.INSTALLATION,
        policy=PrioritySettings(),
    )
    with sessions.begin() as session:
        study = rows.study(
            session, study_uid=images[0].StudyInstanceUID, state=StudyState.COMPOSING
        )
        study.priority, study.priority_rank, study.patient_name = "LOW", 3, "Doe^Jane"
        series = rows.series(session, study, series_uid=images[0].SeriesInstanceUID)
        for ds in images:
            rows.instance(
                session, series, sop_uid=ds.SOPInstanceUID, path=f"ct/{ds.SOPInstanceUID}.dcm"
            )
        found = rows.finding(probability=0.2)
        said = rows.findings(found, study_uid=study.study_uid)
        rows.analysis(session, study, said, priority="LOW", priority_reason="nothing found")
    made = House(sessions, composition, study.id)
    _compose(made)
    return made


def test_models_draft_replaces_the_templates_and_names_it(house: House) -> None:
    """What the archive has is the new report's predecessor; the flow is told of the new one."""
    house.set(sa.update(Delivery).values(state="delivered"))
    assert house.work(Writers())

    row, (first, second) = house.row, house.reports
    assert (row.state, row.source, row.model, row.attempts) == ("done", "model", "tiny 1", 1)
    assert "Hemorrhage of the left" in second.to_json()
    (named,) = (
        second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    )
    assert named.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert [(d.kind, d.state) for d in house.all(Delivery)] == [
        ("sr", "delivered"),
        ("sr", "pending"),
    ]
    assert house.told == ["report"]
    assert house.work(Writers()) is False


def test_report_that_was_not_sent_yet_is_not_sent_any_more(house: House) -> None:
    """Two reports of one analysis would only confuse; nobody has seen the first."""
    house.work(Writers())

    assert [d.state for d in house.all(Delivery)] == ["superseded", "pending"]
    assert "PredecessorDocumentsSequence" not in house.reports[1]


def test_dead_model_delays_only_the_draft(house: House) -> None:
    """The study goes its way; the draft is asked for again, later each time, for days."""
    house.set(sa.update(Study).values(state="done"))

    def dead() -> Draft:
        raise DraftError("no server answers", permanent=False)

    waits = []
    for _ in range(3):
        house.work(Writers(dead))
        waits.append((house.row.next_attempt_at - house.clock()).total_seconds())
        assert house.work(Writers()) is False
        house.clock.forward(hours=1)
    assert waits == [30.0, 60.0, 120.0]
    assert (house.study.state, house.row.state) == ("done", "waiting")
    assert house.row.last_error == "no server answers"
    assert house.row.source == "template"

    house.work(Writers())
    assert (house.row.state, house.row.source) == ("done", "model")
    assert house.study.state == "done"


def test_after_days_the_templates_draft_stays(house: House) -> None:
    """Nobody reads the draft of last week's study."""
    house.clock.forward(hours=73)
    house.work(Writers(_refuse(permanent=False)))

    assert (house.row.state, house.row.source) == ("failed", "template")
    assert len(house.reports) == 1


def test_refusal_for_good_is_not_repeated(house: House) -> None:
    """The same question would get the same answer."""
    house.work(Writers(_refuse(permanent=True)))

    assert (house.row.state, house.row.last_error) == ("failed", "cannot be drafted")
    assert house.work(Writers()) is False


def test_stopping_agent_costs_no_attempt(house: House) -> None:
    """The next life asks again at once."""

    def stops() -> Draft:
        raise AnalysisInterrupted("the agent stops")

    house.work(Writers(stops))

    assert (house.row.state, house.row.attempts) == ("waiting", 0)


@pytest.mark.parametrize(
    "place",
    ["_keep", "outbox.enqueue", "triage_json.write", "drafts.finish", "record.set_priority"],
)
def test_killed_at_any_step_it_ends_with_one_of_each(
    house: House, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft, a report with it, a triage, a report with that: each once, whoever died where."""
    urgent = Writers(triage=lambda: Triage(Acuity.URGENT, "Acute bleed.", "r1"))
    with monkeypatch.context() as armed:
        armed.setattr(f"agent.drafting.room.{place}", _die)
        with pytest.raises(Killed):
            house.work(urgent)
    house.clock.forward(minutes=10)
    house.work(urgent)

    assert (house.row.state, house.row.source) == ("done", "model")
    assert [r.label for r in house.all(Result)] == ["", "draft", "triage"]
    assert [d.state for d in house.all(Delivery)] == ["superseded", "superseded", "pending"]
    assert house.study.priority == "STAT"
    assert sum(e.kind == "triaged" for e in house.all(Event)) == 1


def test_triage_raises_the_priority_and_the_report_says_who_differed(house: House) -> None:
    """The heads said nothing, the reasoning model says urgent: STAT, with both voices."""
    house.work(Writers(triage=lambda: Triage(Acuity.URGENT, "Acute bleed.", "r1")))

    assert (house.study.priority, house.told) == ("STAT", ["report", "priority", "report"])
    assert house.study.priority_reason.startswith("triage by r1: Acute bleed.")
    assert "opinions differ" in house.study.priority_reason
    assert "triage: STAT - triage by r1" in house.reports[-1].to_json()


def test_triage_never_lowers(house: House) -> None:
    """Normal in its opinion; the study stays where it was."""
    house.set(sa.update(Study).values(priority="STAT", priority_rank=0))
    house.work(Writers(triage=lambda: Triage(Acuity.NORMAL, "Fine.", "r1")))

    assert house.study.priority == "STAT"
    assert "priority" not in house.told


def test_triage_is_not_told_who_the_patient_is(house: House) -> None:
    """Names and numbers are handed over to be taken out of the text."""
    writers = Writers(triage=lambda: Triage(Acuity.NORMAL, "Fine.", "r1"))
    house.work(writers)

    identifiers = next(asked for asked in writers.asked if isinstance(asked, list))
    assert {"Doe", "Jane", house.study.patient_id} <= set(identifiers)


def test_dead_triage_lets_the_draft_go_out(house: House) -> None:
    """The report with the draft is delivered; the opinion is asked for until it helps nobody."""

    def dead() -> Triage:
        raise DraftError("no reasoner", permanent=False)

    house.work(Writers(triage=dead))
    assert [r.label for r in house.all(Result)] == ["", "draft"]
    assert house.row.state == "waiting"

    house.clock.forward(hours=7)
    house.work(Writers(triage=dead))
    assert (house.row.state, house.row.last_error) == ("done", "no triage: no reasoner")


def test_templates_draft_is_triaged_where_no_model_writes(house: House) -> None:
    """The opinion needs a text, not a language model that sees images."""
    writers = Writers(triage=lambda: Triage(Acuity.URGENT, "Acute bleed.", "r1"))
    house.work(writers, drafter=None)

    assert (house.row.state, house.row.source, house.study.priority) == ("done", "template", "STAT")
    assert [r.label for r in house.all(Result)] == ["", "triage"]


def test_newer_revision_ends_the_work(house: House) -> None:
    """Late images came while the model wrote: its words are of yesterday."""

    def late() -> Draft:
        house.set(sa.update(Study).values(revision=2))
        return written()

    house.work(Writers(late))

    assert (house.row.state, house.row.source) == ("superseded", "template")
    assert len(house.reports) == 1


def test_drafts_let_studies_go_first_that_wait_for_the_model(house: House) -> None:
    """Both need the encoder; the priority comes first, but not for ever."""
    with house.sessions.begin() as session:
        rows.study(session, state=StudyState.QUEUED)

    assert house.work(Writers()) is False
    house.clock.forward(minutes=11)
    assert house.work(Writers()) is True


def test_guard_sees_the_draft_before_anybody_else(house: House) -> None:
    """What it marks is what is kept."""
    house.work(Writers(), guard=lambda _d, _f, _c: written("Checked."))

    assert "Checked." in house.row.draft


def test_restart_frees_what_the_last_life_held(house: House) -> None:
    """No lease time is waited for."""
    with house.sessions.begin() as session:
        now = house.clock()
        assert drafts.claim(session, owner="node/x", lease=LEASE, now=now, patience=LEASE)
    with house.sessions.begin() as session:
        assert drafts.release_all_of(session, "node/", house.clock()) == 1

    assert (house.row.state, house.row.attempts) == ("waiting", 0)


def _compose(house: House) -> None:
    """What the composing room does before."""
    room = ComposingRoom(
        house.sessions,
        house.composition,
        house.clock,
        template=lambda _f, _c: Draft("CT", (Sentence("By rule."),), Source.TEMPLATE, "template"),
        model_follows=True,
    )
    with house.sessions.begin() as session:
        claim = claims.claim(
            session, [StudyState.COMPOSING], owner="node/rooms", lease=LEASE, now=house.clock()
        )
    assert claim is not None
    room.run(claim, "node/rooms")


def _refuse(*, permanent: bool) -> Callable[[], Draft]:
    def refuse() -> Draft:
        raise DraftError("cannot be drafted", permanent=permanent)

    return refuse


def _die(*_: object, **__: object) -> None:
    raise Killed

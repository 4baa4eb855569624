"""The explaining step: groundings committed before composing, and never a study lost to them."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from factories import outbox as make
from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from agent.errors import AnalysisError, AnalysisInterrupted, ExplanationYielded
from agent.explaining import ExplainingStep
from db.models import Analysis, Event
from db.queries import claims
from db.queries.claims import Claim
from db.states import StudyState
from inference.explain.options import ExplainOptions
from inference.findings import Findings
from inference.study import StudyInput

OWNER = "node/results"
Claimed = tuple[sessionmaker[Session], Claim]


class Model:
    """Answers with what the test prepared; a list of errors first."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked = 0

    def explain(
        self, _study: StudyInput, _pack: str, findings: Findings, _options: ExplainOptions
    ) -> Findings:
        """The first finding gets a place."""
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        place = dataclasses.replace(rows.grounding(), method="lime", fit=0.4)
        first, *rest = findings.findings
        found = (dataclasses.replace(first, grounding=place), *rest)
        return dataclasses.replace(findings, findings=found, timings_s={"explain": 2.0})


@pytest.fixture
def claimed(sessions: sessionmaker[Session]) -> Claimed:
    """A claimed study in composing with one present finding."""
    with sessions.begin() as session:
        study = rows.study(session, state=StudyState.COMPOSING, pack="prima")
        rows.analysis(session, study, rows.findings(rows.finding("glioma", 0.9)), pack="prima")
    with sessions.begin() as session:
        claim = claims.claim(
            session,
            [StudyState.COMPOSING],
            owner=OWNER,
            lease=dt.timedelta(minutes=5),
            now=make.Clock()(),
        )
    assert claim is not None
    return sessions, claim


def step(sessions: sessionmaker[Session], model: Model, pack: str = "prima") -> ExplainingStep:
    """The step with a fake model."""
    packs = frozenset({pack})
    return ExplainingStep(sessions, Path("spool"), model, packs, ExplainOptions(), make.Clock())


def recorded(sessions: sessionmaker[Session]) -> tuple[Findings, list[tuple[str, str]]]:
    """What is on record afterwards."""
    with sessions() as session:
        row = session.execute(sa.select(Analysis)).scalar_one()
        events = session.execute(sa.select(Event).order_by(Event.id)).scalars()
        said = [(e.kind, e.why) for e in events if e.who == "explaining"]
        return Findings.from_json(row.findings), said


def test_groundings_are_committed_with_a_line_on_the_timeline(claimed: Claimed) -> None:
    """The stored findings carry them; a second run asks the model no more."""
    sessions, claim = claimed
    model = Model()
    step(sessions, model).run(claim, OWNER)
    step(sessions, model).run(claim, OWNER)
    found, said = recorded(sessions)
    assert found.findings[0].grounding is not None
    assert found.findings[0].grounding.method == "lime"
    assert said == [("findings_explained", "prima: 1 of 1 findings located, fit 0.40 to 0.40, 2 s")]
    assert model.asked == 1


@pytest.mark.parametrize(
    ("errors", "located"),
    [
        ([ExplanationYielded("busy")] * 2, True),
        ([ExplanationYielded("busy")] * 3, False),
        ([AnalysisError("the inference process died")], False),
    ],
)
def test_giving_way_and_failing_cost_the_explanation_only(
    claimed: Claimed, errors: Sequence[Exception], located: bool
) -> None:
    """It begins anew twice after giving way; otherwise the study goes on without, and says so."""
    sessions, claim = claimed
    step(sessions, Model(*errors)).run(claim, OWNER)
    found, said = recorded(sessions)
    assert (found.findings[0].grounding is not None) is located
    assert [kind for kind, _ in said] == [
        "findings_explained" if located else "explanation_left_out"
    ]


def test_the_end_of_the_agent_gives_the_study_back(claimed: Claimed) -> None:
    """Nothing is recorded; the next start explains it."""
    sessions, claim = claimed
    with pytest.raises(AnalysisInterrupted):
        step(sessions, Model(AnalysisInterrupted("stop"))).run(claim, OWNER)
    assert recorded(sessions)[1] == []


def test_a_lost_lease_and_other_packs_change_nothing(claimed: Claimed) -> None:
    """Who does not hold the study writes nothing; packs without explanations are not asked."""
    sessions, claim = claimed
    before = recorded(sessions)
    model = Model()
    step(sessions, model, pack="other").run(claim, OWNER)
    assert model.asked == 0
    step(sessions, model).run(claim, "somebody else")
    assert recorded(sessions) == before

    assert model.asked == 1

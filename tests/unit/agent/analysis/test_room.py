"""The analysis room on a real record: what is committed together, and what a reader sees of it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import rows
from sqlalchemy.orm import Session, sessionmaker

from agent.analysis.room import AnalysisRoom
from agent.errors import AnalysisError
from agent.settings import PackSettings, PrioritySettings
from db.models import Analysis, Study
from db.queries import claims
from db.states import ReadingState, StudyState
from inference.findings import Acuity, Code, Finding, Findings, Status
from inference.study import StudyInput

OWNER = "node/model"
PACK = "demo-head"
BLEED = Finding(
    label=rows.HEMORRHAGE,
    display="Intraparenchymal hemorrhage",
    code=Code("1", "99X", "bleed"),
    acuity=Acuity.URGENT,
    probability=0.9,
    threshold=0.5,
)


@dataclasses.dataclass
class Scripted:
    """An engine that gives the answer it was told to give."""

    answer: Callable[[StudyInput], Findings]

    def analyse(self, study: StudyInput, pack: str) -> Findings:
        """The scripted answer."""
        return self.answer(study)


def findings(*found: Finding) -> Callable[[StudyInput], Findings]:
    """An analysis that succeeds with these findings."""
    return lambda study: Findings(study.study_uid, Status.SUCCEEDED, rows.PACK, found)


def dead_process(_study: StudyInput) -> Findings:
    """An engine whose process dies."""
    raise AnalysisError("the inference process died")


def room(
    sessions: sessionmaker[Session],
    answer: Callable[[StudyInput], Findings],
    *,
    shadow: bool = False,
) -> AnalysisRoom:
    """A room with one pack."""
    return AnalysisRoom(
        sessions=sessions,
        spool=Path("spool"),
        analyser=Scripted(answer),
        packs={PACK: PackSettings(path=Path("pack"), shadow=shadow)},
        pack_refs={PACK: rows.PACK},
        policy=PrioritySettings(),
        max_attempts=3,
        clock=lambda: rows.NOW,
    )


def claimed(sessions: sessionmaker[Session], **values: object) -> claims.Claim:
    """A queued routine study of revision 1, claimed for analysis."""
    with sessions.begin() as session:
        rows.study(
            session,
            **{
                "state": StudyState.QUEUED,
                "revision": 1,
                "pack": PACK,
                "ordered_priority": "ROUTINE",
                **values,
            },
        )
    with sessions.begin() as session:
        claim = claims.claim(
            session, [StudyState.QUEUED], owner=OWNER, lease=dt.timedelta(days=1), now=rows.NOW
        )
    assert claim is not None
    return claim


def after(sessions: sessionmaker[Session], claim: claims.Claim) -> Study:
    """The study as committed."""
    with sessions() as session:
        return session.get_one(Study, claim.study_id)


def test_findings_and_priority_are_committed_before_composing(
    sessions: sessionmaker[Session],
) -> None:
    """One transaction: the Analysis row, the study's place, the next state."""
    claim = claimed(sessions)

    room(sessions, findings(BLEED)).run(claim, OWNER)

    study = after(sessions, claim)
    assert (study.state, study.priority) == (StudyState.COMPOSING, "STAT")
    with sessions() as session:
        analysis = session.query(Analysis).filter_by(study_id=study.id).one()
        assert (analysis.priority, analysis.shadow) == ("STAT", False)


def test_shadow_mode_records_and_leaves_the_ordered_priority(
    sessions: sessionmaker[Session],
) -> None:
    """The worklist keeps what was ordered; the analysis says what would have been."""
    claim = claimed(sessions)

    room(sessions, findings(BLEED), shadow=True).run(claim, OWNER)

    study = after(sessions, claim)
    assert study.priority == "LOW"
    with sessions() as session:
        analysis = session.query(Analysis).filter_by(study_id=study.id).one()
        assert (analysis.priority, analysis.shadow) == ("STAT", True)


def test_a_worker_that_lost_its_lease_records_nothing(sessions: sessionmaker[Session]) -> None:
    """Somebody else has the study: one analysis a revision."""
    claim = claimed(sessions)
    with sessions.begin() as session:
        session.get_one(Study, claim.study_id).lease_owner = "other/model"

    room(sessions, findings(BLEED)).run(claim, OWNER)

    assert after(sessions, claim).state == StudyState.ANALYSING
    with sessions() as session:
        assert session.query(Analysis).filter_by(study_id=claim.study_id).all() == []


def test_a_dead_process_is_tried_again_and_then_is_the_result(
    sessions: sessionmaker[Session],
) -> None:
    """After the last attempt the study is read as 'not analysed', never as normal."""
    claim = claimed(sessions)
    dying = room(sessions, dead_process)

    with pytest.raises(AnalysisError):
        dying.run(claim, OWNER)
    dying.run(dataclasses.replace(claim, attempts=3), OWNER)

    study = after(sessions, claim)
    assert (study.state, study.priority) == (StudyState.COMPOSING, "MEDIUM")
    assert "says nothing about urgency" in study.priority_reason


@pytest.mark.parametrize(
    ("found", "reading_state"), [((BLEED,), ReadingState.UNREAD), ((), ReadingState.READ)]
)
def test_a_read_study_comes_back_only_if_late_images_raise_it(
    sessions: sessionmaker[Session], found: tuple[Finding, ...], reading_state: ReadingState
) -> None:
    """What the radiologist read was less urgent than what is known now."""
    claim = claimed(
        sessions,
        revision=2,
        reading_state=ReadingState.READ,
        priority="LOW",
        priority_rank=3,
    )

    room(sessions, findings(*found)).run(claim, OWNER)

    assert after(sessions, claim).reading_state == reading_state


def test_site_thresholds_replace_the_packs(sessions: sessionmaker[Session]) -> None:
    """A stricter site does not flag a doubtful finding; the probability stays on record."""
    claim = claimed(sessions)
    strict = dataclasses.replace(
        room(sessions, findings(BLEED)),
        packs={
            PACK: PackSettings(path=Path("p"), shadow=False, thresholds={rows.HEMORRHAGE: 0.95})
        },
    )

    strict.run(claim, OWNER)

    assert after(sessions, claim).priority == "LOW"
    with sessions() as session:
        analysis = session.query(Analysis).filter_by(study_id=claim.study_id).one()
        assert Findings.from_json(analysis.findings).findings[0].probability == pytest.approx(0.9)

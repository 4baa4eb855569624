"""The composing room: committed analyses → result objects on disk and their outbox rows.

Every pack's analysis gets its own objects. The draft that our template words goes out with them; a
language model's may replace it later (drafting/room.py), and nothing here waits for it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import composition
from agent.analysis.room import Tell, study_input, tell_nobody
from agent.clock import Clock
from agent.composition import Composed, Composition, Edition
from agent.delivery import outbox
from agent.drafting import clinical
from agent.errors import ComposeError
from agent.results import context as contexts
from db.engine import reading
from db.models import Analysis, Study
from db.models import Draft as DraftRow
from db.queries import claims, drafts, studies
from db.queries import outbox as rows
from db.states import DraftState, StudyState
from inference.findings import Findings, Status
from inference.report.draft import ClinicalContext, Draft

log = structlog.get_logger(__name__)

WHO = "composing"
#: Words a draft from the findings of every pack that read the study.
Template = Callable[[Sequence[Findings], ClinicalContext], Draft]
#: Locates findings of a claimed study before its objects are made; nothing of it may fail.
Explain = Callable[[claims.Claim, str], None]


def explain_nothing(_claim: claims.Claim, _owner: str) -> None:
    """Findings stay as the analysis gave them."""


@dataclass(frozen=True)
class ComposingRoom:
    """What the room needs: the record, how to compose, and what of a draft is wanted."""

    sessions: sessionmaker[Session]
    composition: Composition
    clock: Clock
    wake_outbox: Callable[[], None] = lambda: None
    template: Template | None = None
    """None = no drafts are made."""
    model_follows: bool = False
    """A language model is to write a draft later."""
    report_pack: str = ""
    """The pack whose report carries the draft, where it read the study."""
    tell: Tell = tell_nobody
    """Told that the results are there, in the transaction that puts them into the outbox."""
    explain: Explain = explain_nothing

    def run(self, claim: claims.Claim, owner: str) -> None:
        """Compose what each analysis says, then commit Result and Delivery rows together.

        Raises:
            ComposeError: the report could not be made; the priority is committed all the same.
        """
        self.explain(claim, owner)
        with reading(self.sessions) as session:
            study = studies.get(session, claim.study_id)
            analyses = _current_analyses(session, study)
            main = composition.main_analysis(analyses, self.report_pack)
            draft = self._draft(session, study, analyses)
            said = [self._context(session, study, a, main, draft) for a in analyses]
        made = [self.composition.files(context) for context in said]
        self._commit(claim, owner, list(zip(analyses, made, strict=True)), main, draft)

    def _context(
        self,
        session: Session,
        study: Study,
        analysis: Analysis,
        main: Analysis,
        draft: Draft | None,
    ) -> contexts.ResultContext:
        edition = Edition(draft=draft if analysis is main else None)
        return self.composition.context(session, study, analysis, edition)

    def _draft(self, session: Session, study: Study, analyses: Sequence[Analysis]) -> Draft | None:
        """Our own wording of what the packs found; None when none of them read anything."""
        live = [a for a in analyses if not a.shadow] or analyses
        said = [Findings.from_json(a.findings) for a in live]
        read = [f for f in said if f.status in (Status.SUCCEEDED, Status.PARTIAL)]
        if self.template is None or not read:
            return None
        given = study_input(
            study, studies.newest_instances(session, study.id), self.composition.spool
        )
        series = [report for findings in read for report in findings.series]
        return self.template(read, clinical.context(session, study, given, series))

    def _commit(
        self,
        claim: claims.Claim,
        owner: str,
        made: Sequence[tuple[Analysis, Composed]],
        main: Analysis,
        draft: Draft | None,
    ) -> None:
        now, destinations = self.clock(), self.composition.destinations
        with self.sessions.begin() as session:
            study = claims.owned(session, claim.study_id, owner)
            if study is None:
                log.warning("composition_discarded", study=claim.key, why="the lease was lost")
                return
            for analysis, objects in made:
                results = self.composition.record(session, analysis, objects, now)
                shadow = analysis.shadow
                outbox.enqueue(session, study, analysis, results, destinations, now, shadow=shadow)
            drafts.supersede_older(session, study.id, study.revision, now)
            if draft is not None:
                self._keep_draft(session, study, draft, now)
            self.tell(session, study, main, now)
            why = f"{sum(len(objects) for _, objects in made)} objects composed"
            studies.move(session, study, StudyState.DELIVERING, who=WHO, why=why, now=now)
            rows.settle(session, study, who=WHO, now=now)
        self.wake_outbox()
        kinds = [one.kind for _, objects in made for one, _ in objects]
        log.info("results_composed", study=claim.key, objects=kinds)

    def _keep_draft(self, session: Session, study: Study, draft: Draft, now: dt.datetime) -> None:
        """The template's draft on record; what a model wrote of this revision stays."""
        if drafts.of_revision(session, study.id, study.revision) is not None:
            return
        waits = self.model_follows
        row = DraftRow(
            study_id=study.id,
            revision=study.revision,
            state=DraftState.WAITING if waits else DraftState.DONE,
            draft=draft.to_json(),
            source=draft.source,
            model=draft.model,
            next_attempt_at=now,
            created_at=now,
            finished_at=None if waits else now,
        )
        session.add(row)
        why = f"{len(draft.sentences)} sentences by {draft.model}"
        studies.note(session, study.id, who=WHO, kind="draft_written", why=why, now=now)


def _current_analyses(session: Session, study: Study) -> Sequence[Analysis]:
    found = studies.current_analyses(session, study)
    if not found:
        raise ComposeError(
            f"revision {study.revision} has no analysis to compose; "
            "use: worklist-agent studies retry --reanalyse"
        )
    return found

"""The drafting room: once the results are on their way, a model writes, and another may triage.

Each step is committed as it is done (the draft, the report that carries it, the triage, the report
that states it), so that a crash goes on with the step that is missing. Nothing in the flow of the
study waits for any of them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent.analysis import record
from agent.analysis.room import Tell, study_input, tell_nobody
from agent.clock import Clock
from agent.composition import Composition, Edition, main_analysis
from agent.delivery import outbox
from agent.drafting import clinical, triage_json
from agent.drafting.guarding import Guard, unchecked
from agent.drafting.triaging import Triager
from agent.errors import AgentError
from db.engine import reading
from db.models import Analysis, Study
from db.models import Draft as DraftRow
from db.queries import drafts, reports, studies
from db.queries import outbox as rows
from db.queries.drafts import ClaimedDraft
from db.states import DraftState, ReadingState
from inference.findings import Findings
from inference.report.draft import ClinicalContext, Draft, Source
from inference.report.drafter import Drafter
from inference.report.errors import DraftError
from inference.report.tokens import VisualTokens
from inference.study import StudyInput

log = structlog.get_logger(__name__)

WHO = "drafting"
#: An opinion that comes later than this helps nobody.
TRIAGE_PATIENCE = dt.timedelta(hours=6)
#: A report is composed again when what it replaces changed meanwhile.
COMPOSE_ATTEMPTS = 3


class DraftOvertaken(AgentError):
    """A newer revision, or another worker, has taken the draft's place."""

    permanent = True


class Encoder(Protocol):
    """The inference process, as far as it shows images to a language model."""

    def visual_tokens(self, study: StudyInput, pack: str) -> VisualTokens:
        """What a language model is shown of a study."""


@dataclass(frozen=True)
class _Subject:
    """What is known of the study at the moment; read again before every step."""

    study: Study
    row: DraftRow
    analyses: Sequence[Analysis]
    main: Analysis
    given: StudyInput
    findings: tuple[Findings, ...]
    context: ClinicalContext
    made: frozenset[str]
    """Editions of the main report that exist."""


@dataclass(frozen=True)
class DraftingRoom:
    """What the room needs: the record, the encoder, who writes, who triages, how to compose."""

    sessions: sessionmaker[Session]
    composition: Composition
    encoder: Encoder
    clock: Clock
    drafter: Drafter | None
    pack: str
    """The pack with the language model; unused without a drafter."""
    triager: Triager | None = None
    guard: Guard = unchecked
    wake_outbox: Callable[[], None] = lambda: None
    tell_report: Tell = tell_nobody
    tell_priority: Tell = tell_nobody

    def run(self, claimed: ClaimedDraft) -> None:
        """Do what is missing about a claimed draft.

        Raises:
            DraftOvertaken: nothing is to be done about it any more.
            AgentError, InferenceError: a step failed; `permanent` says whether for good.
        """
        failure = self._written(claimed)
        subject = self._subject(claimed)
        if subject.row.drafted_at is not None and "draft" not in subject.made:
            self._publish(claimed, "draft")
        if self.triager is not None and subject.row.triaged_at is None:
            self._triage(claimed, subject, self.triager)
            subject = self._subject(claimed)
        if self._triage_changes(subject) and "triage" not in subject.made:
            self._publish(claimed, "triage")
        if failure is not None:
            raise failure
        with self.sessions.begin() as session:
            drafts.finish(self._owned(session, claimed)[1], DraftState.DONE, self.clock())

    def _written(self, claimed: ClaimedDraft) -> DraftError | None:
        """Have the draft written, if it is not; a model that refused leaves the template's.

        The triage then reads that one.
        """
        subject = self._subject(claimed)
        if self.drafter is None or subject.row.drafted_at is not None:
            return None
        try:
            self._write(claimed, subject, self.drafter)
        except DraftError as error:
            if not error.permanent or self.triager is None:
                raise
            return error
        return None

    def _subject(self, claimed: ClaimedDraft) -> _Subject:
        with reading(self.sessions) as session:
            study = studies.get(session, claimed.study_id)
            row = drafts.of_revision(session, study.id, claimed.revision)
            analyses = studies.current_analyses(session, study)
            if row is None or study.revision != claimed.revision or not analyses:
                raise DraftOvertaken("a newer revision of the study took the draft's place")
            live = [a for a in analyses if not a.shadow] or analyses
            main = main_analysis(analyses, self.pack)
            instances = studies.newest_instances(session, study.id)
            given = study_input(study, instances, self.composition.spool)
            findings = tuple(Findings.from_json(a.findings) for a in live)
            series = [report for said in findings for report in said.series]
            return _Subject(
                study=study,
                row=row,
                analyses=analyses,
                main=main,
                given=given,
                findings=findings,
                context=clinical.context(session, study, given, series),
                made=frozenset(
                    r.label for r in reports.of_analysis(session, main) if r.kind == "sr"
                ),
            )

    def _owned(self, session: Session, claimed: ClaimedDraft) -> tuple[Study, DraftRow]:
        """Study and draft, locked in this order, as everybody does who locks a study's rows."""
        study = rows.locked_study(session, claimed.study_id)
        row = drafts.owned(session, claimed)
        if row is None or study.revision != claimed.revision:
            raise DraftOvertaken("the lease was lost, or a newer revision came first")
        return study, row

    def _write(self, claimed: ClaimedDraft, subject: _Subject, drafter: Drafter) -> None:
        """Have the draft written and checked; the page shows it from this commit on."""
        tokens = self.encoder.visual_tokens(subject.given, self.pack)
        rank = subject.study.priority_rank
        draft = drafter.draft(tokens, subject.context, rank)
        draft = self.guard(draft, subject.findings, subject.context)
        now = self.clock()
        with self.sessions.begin() as session:
            study, row = self._owned(session, claimed)
            _keep(row, draft)
            row.drafted_at, row.last_error = now, ""
            why = f"{len(draft.sentences)} sentences by {draft.model} in {draft.seconds:.1f} s"
            studies.note(session, study.id, who=WHO, kind="draft_written", why=why, now=now)
        log.info("draft_written", study=claimed.study_key, attempts=claimed.attempts)

    def _publish(self, claimed: ClaimedDraft, name: str) -> None:
        """Compose the report that replaces the earlier ones, and put it into the outbox."""
        if "sr" not in self.composition.settings.kinds:
            return
        for _ in range(COMPOSE_ATTEMPTS):
            if self._published(claimed, name):
                self.wake_outbox()
                log.info("report_superseded", study=claimed.study_key, kind=name)
                return
        raise DraftError(
            "the reports to be replaced kept changing while a new one was composed; it is tried "
            "again",
            permanent=False,
        )

    def _published(self, claimed: ClaimedDraft, name: str) -> bool:
        """False when a report that this one replaces left the house while it was composed."""
        with reading(self.sessions) as session:
            study = studies.get(session, claimed.study_id)
            analyses = studies.current_analyses(session, study)
            row = drafts.of_revision(session, study.id, claimed.revision)
            if row is None or study.revision != claimed.revision or not analyses:
                raise DraftOvertaken("a newer revision of the study took the draft's place")
            main = main_analysis(analyses, self.pack)
            at = row.triaged_at if name == "triage" else row.drafted_at
            edition = Edition(name, Draft.from_json(row.draft), at)
            context = self.composition.context(session, study, main, edition)
            earlier = [r for r in reports.of_analysis(session, main) if r.kind != "sr"]
        made = self.composition.files(context, ["sr"], earlier)
        now, destinations = self.clock(), self.composition.destinations
        with self.sessions.begin() as session:
            study, _ = self._owned(session, claimed)
            replaced = reports.predecessors(session, main, edition.before)
            if [self.composition.results / path for path in replaced] != [*context.predecessors]:
                return False
            results = self.composition.record(session, main, made, now)
            reports.supersede_unsent(session, main, edition.before)
            outbox.enqueue(session, study, main, results, destinations, now, shadow=main.shadow)
            self.tell_report(session, study, main, now)
            why = f"the report now states the {name}; it replaces the earlier one"
            studies.note(session, study.id, who=WHO, kind="report_replaced", why=why, now=now)
        return True

    def _triage(self, claimed: ClaimedDraft, subject: _Subject, triager: Triager) -> None:
        """Ask for the opinion and let it raise the priority; it never lowers."""
        draft = Draft.from_json(subject.row.draft)
        try:
            said = triager(draft, subject.context, _identifiers(subject.study))
        except DraftError as error:
            since = subject.row.drafted_at or subject.row.created_at
            if not error.permanent and self.clock() - since < TRIAGE_PATIENCE:
                raise
            log.warning("triage_given_up", study=claimed.study_key, why=str(error))
            with self.sessions.begin() as session:
                study, row = self._owned(session, claimed)
                row.last_error = f"no triage: {error}"
                why, now = row.last_error, self.clock()
                studies.note(session, study.id, who=WHO, kind="triage_failed", why=why, now=now)
            return
        now = self.clock()
        with self.sessions.begin() as session:
            study, row = self._owned(session, claimed)
            row.triage, row.triaged_at = triage_json.write(said), now
            why = f"{said.level} by {said.model}: {said.reason}"
            studies.note(session, study.id, who=WHO, kind="triaged", why=why, now=now)
            if study.reading_state == ReadingState.READ:
                return  # a person has seen it; an opinion on when to look comes too late
            session.flush()
            before, policy = study.priority_rank, self.composition.policy
            record.set_priority(session, study, policy, now, who=WHO, complete=False)
            if study.priority_rank < before:
                self.tell_priority(session, study, subject.main, now)
        log.info("study_triaged", study=claimed.study_key, priority=study.priority)

    def _triage_changes(self, subject: _Subject) -> bool:
        """Whether the report must say more than before the triage."""
        if not subject.row.triage or subject.main.shadow:
            return False
        policy = self.composition.policy
        with reading(self.sessions) as session:
            study, found = subject.study, subject.analyses
            with_it, _ = record.combined(session, study, found, policy)
            without, _ = record.combined(session, study, found, policy, triaged=False)
        return with_it.level is not without.level or with_it.disagreement != without.disagreement


def _keep(row: DraftRow, draft: Draft) -> None:
    row.draft = draft.to_json()
    row.source, row.model = Source(draft.source), draft.model


def _identifiers(study: Study) -> list[str]:
    """What must not stand in a text that goes to a language model."""
    names = study.patient_name.replace("^", " ").replace("=", " ").split()
    found = [*names, study.patient_id, study.accession_number, study.patient_birth_date]
    return [text for text in found if text]

"""From a committed analysis to its result objects and their rows, for every room that makes some.

What is composed follows from the record alone, so that composing again writes the same bytes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent import priors
from agent.analysis import record
from agent.analysis.room import study_input
from agent.priority import Decision
from agent.results import compose
from agent.results import context as contexts
from agent.settings import Destination, PrioritySettings, ResultSettings
from db.models import Analysis, Result, Study
from db.queries import reports, studies
from inference.findings import Findings
from inference.report.draft import Draft

Composed = list[tuple[contexts.ComposedObject, Path]]


@dataclass(frozen=True)
class Edition:
    """Which report of an analysis, see `contexts.EDITIONS`.

    Attributes:
        name: empty for the first, which comes with the other objects.
        draft: its narrative.
        at: when what it adds was known; None = with the analysis.
    """

    name: str = ""
    draft: Draft | None = None
    at: dt.datetime | None = None

    @property
    def before(self) -> tuple[str, ...]:
        """The editions it replaces."""
        return contexts.EDITIONS[: contexts.EDITIONS.index(self.name)]


FIRST = Edition()


@dataclass(frozen=True)
class Composition:
    """What composing needs: spool and results directories, who we are, and the policy."""

    spool: Path
    results: Path
    settings: ResultSettings
    destinations: Sequence[Destination]
    installation: contexts.Installation
    policy: PrioritySettings
    unsupported_sentences: bool = False

    def context(
        self, session: Session, study: Study, analysis: Analysis, edition: Edition = FIRST
    ) -> contexts.ResultContext:
        """Everything the objects of an analysis say."""
        rows = studies.newest_instances(session, study.id)
        at = edition.at or analysis.created_at
        return contexts.ResultContext(
            analysis_id=analysis.id,
            revision=analysis.revision,
            created_at=at.astimezone(),  # result objects show local time
            findings=Findings.from_json(analysis.findings),
            priority=self._statement(session, study, analysis, triaged=edition.name == "triage"),
            sources=study_input(study, rows, self.spool).series,
            installation=self.installation,
            predecessors=tuple(
                self.results / path
                for path in reports.predecessors(session, analysis, edition.before)
            ),
            options=contexts.ResultOptions(
                kinds=self.settings.kinds,
                max_segments=self.settings.max_segments,
                unsupported_sentences=self.unsupported_sentences,
            ),
            provisional=analysis.provisional,
            draft=edition.draft,
            edition=edition.name,
            comparison=self._comparison(session, study, analysis),
        )

    def files(
        self,
        context: contexts.ResultContext,
        kinds: Sequence[str] | None = None,
        earlier: Sequence[Result] = (),
    ) -> Composed:
        """Make the objects on disk; `earlier` ones are there already, for the report to name."""
        directory = self.results / context.analysis_id
        made = [_composed(row) for row in earlier]
        return compose.compose_files(context, directory, kinds, made)

    def record(
        self, session: Session, analysis: Analysis, made: Composed, now: dt.datetime
    ) -> list[Result]:
        """The rows of the objects; a retry after a crash finds those it wrote before."""
        rows = [self._row(session, analysis, one, path, now) for one, path in made]
        session.flush()
        return rows

    def _row(
        self,
        session: Session,
        analysis: Analysis,
        made: contexts.ComposedObject,
        path: Path,
        now: dt.datetime,
    ) -> Result:
        known = session.execute(
            sa.select(Result).where(Result.sop_uid == made.sop_uid)
        ).scalar_one_or_none()
        if known is not None:
            return known
        row = Result(
            analysis_id=analysis.id,
            study_id=analysis.study_id,
            kind=made.kind,
            label=made.label,
            sop_class_uid=made.sop_class_uid,
            sop_uid=made.sop_uid,
            series_uid=made.series_uid,
            path=str(path.relative_to(self.results)),
            size_bytes=path.stat().st_size,
            created_at=now,
        )
        session.add(row)
        return row

    def _comparison(self, session: Session, study: Study, analysis: Analysis) -> str:
        """What changed since an earlier study, in words."""
        found = priors.compare(session, study, analysis)
        return found.text if found else ""

    def _statement(
        self, session: Session, study: Study, analysis: Analysis, *, triaged: bool
    ) -> contexts.PriorityStatement:
        """The priority of the study as all live packs see it; in shadow mode this pack's own."""
        rows = [analysis]
        if not analysis.shadow:
            same = (a for a in studies.analyses(session, study.id) if not a.shadow)
            rows = [a for a in same if a.revision == analysis.revision]
        decision, _ = record.combined(session, study, rows, self.policy, triaged=triaged)
        return contexts.PriorityStatement(
            level=decision.level,
            score=decision.score,
            reason=decision.reason,
            ordered=decision.ordered,
            voices=_voices(decision),
            disagreement=decision.disagreement,
        )


def main_analysis(analyses: Sequence[Analysis], preferred: str = "") -> Analysis:
    """The analysis whose report carries the draft: of the preferred pack, else what was read."""

    def rank(row: Analysis) -> tuple[bool, bool, bool]:
        return row.shadow, row.status not in ("succeeded", "partial"), row.pack != preferred

    return min(analyses, key=rank)  # of equals the first, which is the first pack


def _voices(decision: Decision) -> tuple[str, ...]:
    """One line each where several spoke, or where somebody else than the findings did."""
    votes = decision.votes
    if len(votes) < 2 and all(vote.voice == "findings" for vote in votes):
        return ()
    return tuple(f"{vote.voice}: {vote.level} - {vote.reason}" for vote in votes)


def _composed(row: Result) -> contexts.ComposedObject:
    return contexts.ComposedObject(
        kind=row.kind,
        label=row.label,
        sop_class_uid=row.sop_class_uid,
        sop_uid=row.sop_uid,
        series_uid=row.series_uid,
        dataset=None,
    )

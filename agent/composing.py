"""The composing room: a committed analysis → result objects on disk and their outbox rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent.analysis.room import study_input
from agent.clock import Clock
from agent.delivery import outbox
from agent.errors import ComposeError
from agent.results import compose
from agent.results import context as contexts
from agent.settings import Destination, ResultSettings
from db.engine import reading
from db.models import Analysis, Delivery, Result, Study
from db.queries import claims, studies
from db.states import DeliveryState, StudyState
from inference.findings import Findings

log = structlog.get_logger(__name__)

WHO = "composing"

Composed = list[tuple[contexts.ComposedObject, Path]]


@dataclass(frozen=True)
class ComposingRoom:
    """What the room needs: the record, spool and results directories, and who we are."""

    sessions: sessionmaker[Session]
    spool: Path
    results: Path
    settings: ResultSettings
    destinations: Sequence[Destination]
    installation: contexts.Installation
    ordered_levels: Mapping[str, str]
    clock: Clock
    wake_outbox: Callable[[], None] = lambda: None

    def run(self, claim: claims.Claim, owner: str) -> None:
        """Compose what the analysis says, then commit Result and Delivery rows together.

        Raises:
            ComposeError: the report could not be made; the priority is committed all the same.
        """
        with reading(self.sessions) as session:
            study = studies.get(session, claim.study_id)
            analysis = _current_analysis(session, study)
            context = self._context(session, study, analysis)
        made = compose.compose_files(context, self.results / analysis.id)
        self._commit(claim, owner, analysis, made)

    def _context(
        self, session: Session, study: Study, analysis: Analysis
    ) -> contexts.ResultContext:
        rows = studies.newest_instances(session, study.id)
        ordered = self.ordered_levels.get(study.ordered_priority.upper())
        return contexts.ResultContext(
            analysis_id=analysis.id,
            revision=analysis.revision,
            created_at=analysis.created_at.astimezone(),  # result objects show local time
            findings=Findings.from_json(analysis.findings),
            priority=contexts.PriorityStatement(
                level=analysis.priority,
                score=analysis.priority_score,
                reason=analysis.priority_reason,
                ordered=ordered,
            ),
            sources=study_input(study, rows, self.spool).series,
            installation=self.installation,
            predecessors=tuple(
                self.results / path for path in _earlier_reports(session, study, analysis)
            ),
            options=contexts.ResultOptions(
                kinds=self.settings.kinds, max_segments=self.settings.max_segments
            ),
        )

    def _commit(self, claim: claims.Claim, owner: str, analysis: Analysis, made: Composed) -> None:
        now = self.clock()
        with self.sessions.begin() as session:
            study = claims.owned(session, claim.study_id, owner)
            if study is None:
                log.warning("composition_discarded", study=claim.key, why="the lease was lost")
                return
            results = [self._result(session, study, analysis, one, path) for one, path in made]
            session.flush()
            why = f"{len(results)} objects composed"
            studies.move(session, study, StudyState.DELIVERING, who=WHO, why=why, now=now)
            outbox.enqueue(
                session, study, analysis, results, self.destinations, now, shadow=analysis.shadow
            )
        self.wake_outbox()
        log.info("results_composed", study=claim.key, objects=[o.kind for o, _ in made])

    def _result(
        self,
        session: Session,
        study: Study,
        analysis: Analysis,
        made: contexts.ComposedObject,
        path: Path,
    ) -> Result:
        """The row of one object; a retry after a crash finds the one it wrote before."""
        known = session.execute(
            sa.select(Result).where(Result.sop_uid == made.sop_uid)
        ).scalar_one_or_none()
        if known is not None:
            return known
        row = Result(
            analysis_id=analysis.id,
            study_id=study.id,
            kind=made.kind,
            label=made.label,
            sop_class_uid=made.sop_class_uid,
            sop_uid=made.sop_uid,
            series_uid=made.series_uid,
            path=str(path.relative_to(self.results)),
            size_bytes=path.stat().st_size,
            created_at=self.clock(),
        )
        session.add(row)
        return row


def _current_analysis(session: Session, study: Study) -> Analysis:
    query = sa.select(Analysis).where(
        Analysis.study_id == study.id, Analysis.revision == study.revision
    )
    analysis = session.execute(query).scalar_one_or_none()
    if analysis is None:
        raise ComposeError(
            f"revision {study.revision} has no analysis to compose; "
            "use: worklist-agent studies retry --reanalyse"
        )
    return analysis


def _earlier_reports(session: Session, study: Study, analysis: Analysis) -> list[str]:
    """Files of the reports this one replaces, newest last: only those that left the house.

    A reference to a report that no archive holds would lead its reader nowhere.
    """
    left = sa.exists().where(
        Delivery.result_id == Result.id,
        Delivery.state.in_([DeliveryState.DELIVERED, DeliveryState.SENDING]),
    )
    query = (
        sa.select(Result.path)
        .join(Analysis, Analysis.id == Result.analysis_id)
        .where(
            Result.study_id == study.id,
            Result.kind == "sr",
            Analysis.revision < analysis.revision,
            left,
        )
        .order_by(Analysis.revision)
    )
    return list(session.execute(query).scalars())

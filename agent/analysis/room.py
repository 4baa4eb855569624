"""The analysis room: a queued study → findings → priority, committed before any object is made."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import __version__, priority
from agent import facts as study_facts
from agent.clock import Clock
from agent.errors import AnalysisError, AnalysisInterrupted
from agent.settings import PackSettings, PrioritySettings
from db.engine import reading
from db.models import Analysis, Instance, Series, Study
from db.queries import claims, studies
from db.states import ReadingState, StudyState
from inference.findings import Findings, PackRef, Status
from inference.study import IMAGE_MODALITIES, SeriesInput, StudyInput

log = structlog.get_logger(__name__)

WHO = "analysis"


class PackGone(AnalysisError):
    """The pack that routing chose was taken out of the configuration."""

    permanent = True


class Analyser(Protocol):
    """The engine, in this process or in its own."""

    def analyse(self, study: StudyInput, pack: str) -> Findings:
        """Findings of one study."""


@dataclasses.dataclass(frozen=True)
class AnalysisRoom:
    """What the room needs: the record, the spool, the models and the policy."""

    sessions: sessionmaker[Session]
    spool: Path
    analyser: Analyser
    packs: Mapping[str, PackSettings]
    pack_refs: Mapping[str, PackRef]
    policy: PrioritySettings
    max_attempts: int
    clock: Clock
    observe: Callable[[float], None] = lambda _seconds: None
    """Told the seconds from the last image to the committed priority."""

    def run(self, claim: claims.Claim, owner: str) -> None:
        """Analyse a claimed study and commit findings and priority together.

        Raises:
            AnalysisError: transient; the worker tries again until `max_attempts`, after which the
                failure itself is the result (the reader sees "not analysed").
            AnalysisInterrupted: the agent stops; the worker gives the study back.
            PackGone: permanent; the configuration changed under a queued study.
        """
        with reading(self.sessions) as session:
            study = studies.get(session, claim.study_id)
            rows = studies.newest_instances(session, study.id)
        started = time.monotonic()
        findings = self._findings(study, rows, claim)
        self._commit(claim, owner, study.revision, findings, time.monotonic() - started)

    def _findings(
        self, study: Study, rows: Sequence[tuple[Series, Instance]], claim: claims.Claim
    ) -> Findings:
        if study.pack not in self.packs:
            raise PackGone(
                f"pack {study.pack!r} is not configured any more; add it again, or route the study "
                "anew: worklist-agent studies retry"
            )
        given = study_input(study, rows, self.spool)
        try:
            findings = self.analyser.analyse(given, study.pack)
        except AnalysisInterrupted:
            raise
        except AnalysisError as error:
            if claim.attempts < self.max_attempts:
                raise
            findings = Findings(
                study_uid=study.study_uid,
                status=Status.FAILED,
                pack=self.pack_refs[study.pack],
                reason=f"{error} (gave up after {claim.attempts} attempts)",
            )
        return with_thresholds(findings, self.packs[study.pack].thresholds)

    def _commit(
        self, claim: claims.Claim, owner: str, revision: int, findings: Findings, seconds: float
    ) -> None:
        now = self.clock()
        with self.sessions.begin() as session:
            study = claims.owned(session, claim.study_id, owner)
            if study is None or study.revision != revision:
                log.warning("analysis_discarded", study=claim.key, why="the lease was lost")
                return
            decision = priority.decide(findings, study_facts.of(study, study.series), self.policy)
            shadow = self.packs[study.pack].shadow
            session.add(_analysis_row(study, findings, decision, seconds, now, shadow=shadow))
            _keep_series_reasons(study, findings)
            _set_priority(session, study, decision, now, shadow=shadow)
            why = f"{findings.status}: {len(findings.positives)} findings above threshold"
            studies.move(session, study, StudyState.COMPOSING, who=WHO, why=why, now=now)
            waited_s = (now - study.last_instance_at).total_seconds()
        self.observe(waited_s)
        log.info(
            "study_analysed",
            study=claim.key,
            revision=revision,
            status=findings.status.value,
            positives=len(findings.positives),
            priority=decision.level.value,
            seconds=round(seconds, 2),
        )


def study_input(study: Study, rows: Sequence[tuple[Series, Instance]], spool: Path) -> StudyInput:
    """Translate rows into what the models take; only series a model may read."""
    files: dict[int, list[Path]] = {}
    by_id: dict[int, Series] = {}
    for series, instance in rows:
        if series.modality in IMAGE_MODALITIES:
            by_id[series.id] = series
            files.setdefault(series.id, []).append(spool / instance.path)
    modalities = [by_id[i].modality for i in by_id]
    modality = max(IMAGE_MODALITIES, key=modalities.count) if modalities else ""
    return StudyInput(
        study_uid=study.study_uid,
        modality=modality,
        series=tuple(
            SeriesInput(s.series_uid, s.modality, s.description, tuple(files[i]))
            for i, s in by_id.items()
        ),
    )


def with_thresholds(findings: Findings, site: Mapping[str, float]) -> Findings:
    """Findings with the site's thresholds in place of the pack's."""
    if not site:
        return findings
    changed = tuple(
        dataclasses.replace(f, threshold=site.get(f.label, f.threshold)) for f in findings.findings
    )
    return dataclasses.replace(findings, findings=changed)


def _analysis_row(
    study: Study,
    findings: Findings,
    decision: priority.Decision,
    seconds: float,
    now: dt.datetime,
    *,
    shadow: bool,
) -> Analysis:
    return Analysis(
        id=uuid.uuid4().hex,
        study_id=study.id,
        revision=study.revision,
        pack=findings.pack.name,
        pack_version=findings.pack.version,
        pack_digest=findings.pack.digest,
        code_version=__version__,
        status=findings.status,
        findings=findings.to_json(),
        priority=decision.level,
        priority_score=decision.score,
        priority_reason=decision.reason,
        shadow=shadow,
        seconds=seconds,
        created_at=now,
    )


def _keep_series_reasons(study: Study, findings: Findings) -> None:
    reports = {r.series_uid: r for r in findings.series}
    for series in study.series:
        report = reports.get(series.series_uid)
        if report is not None:
            series.reason = "" if report.used else report.reason
        elif series.own_result:
            series.reason = "a result of this agent"
        elif series.modality not in IMAGE_MODALITIES:
            series.reason = f"modality {series.modality or 'unknown'} is not read by models"


def _set_priority(
    session: Session, study: Study, decision: priority.Decision, now: dt.datetime, *, shadow: bool
) -> None:
    """The worklist moves with this commit; in shadow mode the ordered level stays."""
    why = f"{decision.level}: {decision.reason}"
    if shadow:
        why += " (shadow mode: recorded, the worklist keeps the ordered priority)"
    level = decision.level if not shadow else decision.ordered
    if level is not None:
        if study.reading_state == ReadingState.READ and level.rank < study.priority_rank:
            # What was read was less urgent than what late images show: it comes back.
            study.reading_state = ReadingState.UNREAD
            why += "; back on the open list, it was read before these images came"
        study.priority, study.priority_rank = level, level.rank
        study.priority_score = 0.0 if shadow else decision.score
        study.priority_reason = "ordered priority" if shadow else decision.reason
    studies.note(session, study.id, who=WHO, kind="priority_set", why=why, now=now)

"""Between priority and result objects: where in the images the findings of some packs were seen.

The analysis is committed without it, so that no priority waits: an explanation asks the model for
hundreds of answers about one study. It gives way to every study that waits for the model, and is
left out when it failed or had to give way too often.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import faults, worklist_entries
from agent.analysis.room import study_input
from agent.clock import Clock
from agent.errors import AnalysisError, AnalysisInterrupted, ExplanationYielded
from db.engine import reading
from db.models import Analysis, Study
from db.queries import claims, studies
from inference.errors import InferenceError
from inference.explain.options import ExplainOptions
from inference.findings import Findings, Status
from inference.study import StudyInput

log = structlog.get_logger(__name__)

WHO = "explaining"
#: How often an explanation starts anew after giving way to another study.
ATTEMPTS = 3
EXPLAINED = "explain"
"""The timing that an explanation leaves in the findings."""


class Explainer(Protocol):
    """The engine, in this process or in its own."""

    def explain(
        self, study: StudyInput, pack: str, findings: Findings, options: ExplainOptions
    ) -> Findings:
        """Findings with groundings."""


@dataclass(frozen=True)
class ExplainingStep:
    """What the step needs: the record, the spool, the models, and what it may cost.

    Attributes:
        packs: names of the packs whose families explain; the others are left alone.
    """

    sessions: sessionmaker[Session]
    spool: Path
    analyser: Explainer
    packs: AbstractSet[str]
    options: ExplainOptions
    clock: Clock

    def run(self, claim: claims.Claim, owner: str) -> None:
        """Add groundings to the claimed study's analyses and commit each as it comes.

        Raises:
            AnalysisInterrupted: the agent stops; the study is given back.
        """
        with reading(self.sessions) as session:
            study = studies.get(session, claim.study_id)
            given = study_input(study, studies.newest_instances(session, study.id), self.spool)
            todo = [
                (row.id, row.pack, Findings.from_json(row.findings))
                for row in studies.current_analyses(session, study)
                if row.pack in self.packs
            ]
        for analysis, pack, findings in todo:
            if _explainable(findings):
                self._explain(claim, owner, analysis, pack, given, findings)

    def _explain(
        self,
        claim: claims.Claim,
        owner: str,
        analysis: str,
        pack: str,
        given: StudyInput,
        findings: Findings,
    ) -> None:
        try:
            explained = self._patiently(given, pack, findings)
        except AnalysisInterrupted:
            raise
        except (AnalysisError, InferenceError) as error:
            why = faults.describe(error)
            log.warning("explanation_left_out", study=claim.key, pack=pack, why=why)
            self._note(claim, owner, "explanation_left_out", f"{pack}: {why}")
            return
        now = self.clock()
        with self.sessions.begin() as session:
            study = claims.owned(session, claim.study_id, owner)
            if study is None:
                log.warning("explanation_discarded", study=claim.key, why="the lease was lost")
                return
            row = session.get_one(Analysis, analysis)
            row.findings = explained.to_json()
            row.summary = worklist_entries.summary_of(row.findings)
            _tell(session, study, f"{pack}: {_summary(explained)}", "findings_explained", now)

    def _patiently(self, given: StudyInput, pack: str, findings: Findings) -> Findings:
        """The explanation, begun anew each time it had to give way, up to `ATTEMPTS`."""
        for _ in range(ATTEMPTS - 1):
            try:
                return self.analyser.explain(given, pack, findings, self.options)
            except ExplanationYielded as error:
                log.info("explanation_gave_way", pack=pack, why=str(error))
        return self.analyser.explain(given, pack, findings, self.options)

    def _note(self, claim: claims.Claim, owner: str, kind: str, why: str) -> None:
        with self.sessions.begin() as session:
            study = claims.owned(session, claim.study_id, owner)
            if study is not None:
                _tell(session, study, why, kind, self.clock())


def _explainable(findings: Findings) -> bool:
    read = findings.status in (Status.SUCCEEDED, Status.PARTIAL)
    return read and bool(findings.positives) and EXPLAINED not in findings.timings_s


def _summary(findings: Findings) -> str:
    located = [f for f in findings.positives if f.grounding is not None]
    fits = [f.grounding.fit for f in located if f.grounding and f.grounding.fit is not None]
    quality = f", fit {min(fits):.2f} to {max(fits):.2f}" if fits else ""
    seconds = findings.timings_s.get(EXPLAINED, 0.0)
    return f"{len(located)} of {len(findings.positives)} findings located{quality}, {seconds:.0f} s"


def _tell(session: Session, study: Study, why: str, kind: str, now: dt.datetime) -> None:
    studies.note(session, study.id, who=WHO, kind=kind, why=why, now=now)

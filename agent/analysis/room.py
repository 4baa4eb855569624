"""The analysis room: queued studies → findings → priority, committed before any object is made.

A study is read by its packs one after the other. Each answer is committed as it comes, with the
priority over all answers so far, so that the first urgent one moves the worklist; after a crash the
packs that are missing go on.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent.analysis import record
from agent.clock import Clock
from agent.errors import AnalysisError, AnalysisInterrupted
from agent.settings import PackSettings, PrioritySettings
from db.engine import reading
from db.models import Analysis, Instance, Series, Study
from db.queries import claims, studies
from db.states import StudyState
from inference.findings import Findings, PackRef, Status
from inference.study import IMAGE_MODALITIES, SeriesInput, StudyInput

log = structlog.get_logger(__name__)

WHO = "analysis"
#: Image series a study needs before packs of the family are asked.
FAMILY_MIN_SERIES = {"prima": 2}

#: Told of the committed priority (session, study, analysis, now), in its transaction.
Tell = Callable[[Session, Study, Analysis, dt.datetime], object]


def tell_nobody(_session: Session, _study: Study, _analysis: Analysis, _now: dt.datetime) -> None:
    """No destination wants to be told."""


class PackGone(AnalysisError):
    """The pack that routing chose was taken out of the configuration."""

    permanent = True


class Analyser(Protocol):
    """The engine, in this process or in its own."""

    def analyse(self, study: StudyInput, pack: str) -> Findings:
        """Findings of one study."""


@dataclasses.dataclass(frozen=True)
class _Job:
    """A claimed study and what is still to be done about it."""

    claim: claims.Claim
    study: Study
    given: StudyInput
    missing: tuple[str, ...]

    def attempts(self, pack: str) -> int:
        """How often this pack was tried: the claim's count is about the first that is missing."""
        return self.claim.attempts if pack == self.missing[0] else 1


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
    """Told the seconds from the last image to the first committed priority."""
    min_series: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Image series that a pack needs; see `FAMILY_MIN_SERIES`."""
    tell: Tell = tell_nobody

    def run(self, claim: claims.Claim, owner: str) -> None:
        """Analyse a claimed study with every pack that has not, and commit each answer.

        Raises:
            AnalysisError: transient; the worker tries again until `max_attempts`, after which the
                failure itself is the result (the reader sees "not analysed").
            AnalysisInterrupted: the agent stops; the worker gives the study back.
            PackGone: permanent; the configuration changed under a queued study.
        """
        for error in self.run_many([claim], owner).values():
            raise error

    def run_many(self, claimed: Sequence[claims.Claim], owner: str) -> dict[int, Exception]:
        """Analyse studies that wait for the same packs, together; what failed, by study id.

        Raises:
            AnalysisInterrupted: the agent stops; what is not committed is given back.
        """
        failed: dict[int, Exception] = {}
        jobs = []
        for claim in claimed:
            job = self._job(claim)
            gone = [pack for pack in job.missing if pack not in self.packs]
            if gone or not job.study.packs:
                failed[claim.study_id] = _pack_gone(gone[0] if gone else "")
            else:
                jobs.append(job)
        for pack in dict.fromkeys(pack for job in jobs for pack in job.missing):
            todo = [j for j in jobs if pack in j.missing and j.claim.study_id not in failed]
            for job, said in self._answers(todo, pack):
                if isinstance(said, Exception):
                    failed[job.claim.study_id] = said
                else:
                    self._commit(job, owner, said)
        for job in jobs:
            if not job.missing:
                self._go_on(job, owner)
        return failed

    def _job(self, claim: claims.Claim) -> _Job:
        with reading(self.sessions) as session:
            study = studies.get(session, claim.study_id)
            rows = studies.newest_instances(session, study.id)
            done = {a.pack for a in studies.current_analyses(session, study)}
        missing = tuple(pack for pack in study.packs if pack not in done)
        return _Job(claim, study, study_input(study, rows, self.spool), missing)

    def _answers(
        self, jobs: Sequence[_Job], pack: str
    ) -> Iterator[tuple[_Job, record.Analysed | Exception]]:
        """One answer a study, as they come; several studies go to the model together."""
        together = self._together(jobs, pack) if len(jobs) > 1 else None
        if together is not None:
            yield from zip(jobs, together, strict=True)
            return
        for job in jobs:
            started = time.monotonic()
            try:
                findings = self._findings(job, pack)
            except AnalysisInterrupted:
                raise
            except Exception as error:  # noqa: BLE001  given to the worker, who records it
                yield job, error
            else:
                yield job, self._analysed(pack, findings, time.monotonic() - started)

    def _together(self, jobs: Sequence[_Job], pack: str) -> list[record.Analysed] | None:
        """All studies in one run of the model; None when that is not possible or went wrong.

        A study that kills the model must not take its neighbors along: they are then asked about
        one by one.
        """
        many = getattr(self.analyser, "analyse_many", None)
        if many is None or any(self._too_few(job.given, pack) for job in jobs):
            return None
        started = time.monotonic()
        try:
            said = many([job.given for job in jobs], pack)
        except AnalysisInterrupted:
            raise
        except AnalysisError as error:
            log.warning("batch_failed", pack=pack, count=len(jobs), why=str(error))
            return None
        share = (time.monotonic() - started) / len(jobs)
        return [self._analysed(pack, findings, share) for findings in said]

    def _findings(self, job: _Job, pack: str) -> Findings:
        too_few = self._too_few(job.given, pack)
        if too_few:
            return self._without(job, pack, Status.NOT_ATTEMPTED, too_few)
        try:
            return self.analyser.analyse(job.given, pack)
        except AnalysisInterrupted:
            raise
        except AnalysisError as error:
            attempts = job.attempts(pack)
            if attempts < self.max_attempts:
                raise
            reason = f"{error} (gave up after {attempts} attempts)"
            return self._without(job, pack, Status.FAILED, reason)

    def _too_few(self, given: StudyInput, pack: str) -> str:
        needed, there = self.min_series.get(pack, 0), len(given.series)
        return f"pack {pack} needs {needed} image series, {there} received" * (there < needed)

    def _without(self, job: _Job, pack: str, status: Status, reason: str) -> Findings:
        return Findings(job.study.study_uid, status, self.pack_refs[pack], reason=reason)

    def _analysed(self, pack: str, findings: Findings, seconds: float) -> record.Analysed:
        settings = self.packs[pack]
        said = with_thresholds(findings, settings.thresholds)
        return record.Analysed(pack, said, seconds, shadow=settings.shadow)

    def _commit(self, job: _Job, owner: str, said: record.Analysed) -> None:
        now = self.clock()
        last = said.pack == job.missing[-1]
        with self.sessions.begin() as session:
            study = claims.owned(session, job.claim.study_id, owner)
            if study is None or study.revision != job.study.revision:
                log.warning("analysis_discarded", study=job.claim.key, why="the lease was lost")
                return
            row = record.add(session, study, said, self.policy, now)
            decision = record.set_priority(session, study, self.policy, now, who=WHO, complete=last)
            self.tell(session, study, row, now)
            why = f"{said.findings.status}: {len(said.findings.positives)} findings above threshold"
            if last:
                studies.move(session, study, StudyState.COMPOSING, who=WHO, why=why, now=now)
            else:
                study.attempts = 1  # the next pack's first
                why = f"{said.pack}: {why}"
                studies.note(session, study.id, who=WHO, kind="analysed", why=why, now=now)
            waited_s = (now - study.last_instance_at).total_seconds()
        if said.pack == job.study.packs[0]:
            self.observe(waited_s)
        log.info(
            "study_analysed",
            study=job.claim.key,
            revision=job.study.revision,
            pack=said.pack,
            status=said.findings.status.value,
            positives=len(said.findings.positives),
            priority=decision.level.value,
            seconds=round(said.seconds, 2),
        )

    def _go_on(self, job: _Job, owner: str) -> None:
        """Every pack has answered already: a pack was taken out of the rule meanwhile."""
        with self.sessions.begin() as session:
            study = claims.owned(session, job.claim.study_id, owner)
            if study is not None:
                why, now = "every pack has answered", self.clock()
                studies.move(session, study, StudyState.COMPOSING, who=WHO, why=why, now=now)


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
    """Findings with the site's thresholds in place of the pack's.

    A site threshold is a probability: where a model publishes a score against its own threshold,
    that score no longer decides.
    """
    if not site:
        return findings
    changed = tuple(
        dataclasses.replace(f, threshold=site[f.label], score=None) if f.label in site else f
        for f in findings.findings
    )
    return dataclasses.replace(findings, findings=changed)


def _pack_gone(pack: str) -> PackGone:
    return PackGone(
        f"pack {pack!r} is not configured any more; add it again, or route the study "
        "anew: worklist-agent studies retry"
    )

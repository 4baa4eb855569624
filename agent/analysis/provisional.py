"""A provisional priority for emergency studies: from the first usable series, while others arrive.

The study stays what it is, receiving: its lease is all this room takes, and assembly ends that
lease when the study is complete. The analysis is of revision 0; the full one replaces its priority,
and its report names the provisional one as predecessor.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import facts as study_facts
from agent import faults, leases
from agent.analysis import record
from agent.analysis.room import Analyser, Tell, study_input, tell_nobody, with_thresholds
from agent.clock import Clock
from agent.composition import Composition
from agent.delivery import outbox
from agent.errors import AnalysisInterrupted
from agent.routing import rules
from agent.settings import AssemblySettings, PackSettings, PrioritySettings, RoutingSettings
from db.engine import reading
from db.models import Study
from db.queries import arriving, claims, studies
from inference.findings import Status
from inference.study import IMAGE_MODALITIES, StudyInput

log = structlog.get_logger(__name__)

WHO = "provisional"
IDLE_S = 1.0
READ = (Status.SUCCEEDED, Status.PARTIAL)


@dataclass(frozen=True)
class _Work:
    """A claimed study, the pack that reads it, and the series that are there."""

    claim: claims.Claim
    pack: str
    given: StudyInput


@dataclass(frozen=True)
class ProvisionalRoom:
    """What the room needs: the record, the models, the rules, and how to compose."""

    sessions: sessionmaker[Session]
    composition: Composition
    analyser: Analyser
    assembly: AssemblySettings
    routing: RoutingSettings
    packs: Mapping[str, PackSettings]
    policy: PrioritySettings
    clock: Clock
    lease: dt.timedelta
    min_series: Mapping[str, int]
    wake_outbox: Callable[[], None] = lambda: None
    tell: Tell = tell_nobody

    def run_once(self, owner: str) -> bool:
        """Deal with one study; False when none is due."""
        work = self._claimed(owner)
        if work is None:
            return False
        with structlog.contextvars.bound_contextvars(study=work.claim.key, room=WHO):
            try:
                with leases.kept(lambda: self._renew(work, owner), self.lease, work.claim.key):
                    self._analyse(work, owner)
                    self._compose(work, owner)
            except AnalysisInterrupted:
                pass  # the agent stops; the next life looks at the study as it finds it
            except Exception as error:  # noqa: BLE001  the edge: the full analysis comes in any case
                self._leave(work, owner, faults.describe(error))
            self._give_back(work, owner)
        return True

    def _claimed(self, owner: str) -> _Work | None:
        """The next study that is due, leased."""
        now = self.clock()
        with reading(self.sessions) as session:
            due = [found for found in arriving.unassembled(session) if self._wanted(found)]
            due.sort(key=lambda study: study.first_instance_at)
            found = next((w for s in due if (w := self._ready(session, s, now)) is not None), None)
        if found is None:
            return None
        study_id, pack, given = found
        with self.sessions.begin() as session:
            claim = claims.claim_receiving(
                session, study_id, owner=owner, lease=self.lease, now=now
            )
        return None if claim is None else _Work(claim, pack, given)

    def _wanted(self, study: Study) -> bool:
        facts = study_facts.of(study, study.series)
        return any(study_facts.matches(match, facts) for match in self.assembly.provisional)

    def _ready(
        self, session: Session, study: Study, now: dt.datetime
    ) -> tuple[int, str, StudyInput] | None:
        """Study, pack and series, when there is one to read that was not tried yet."""
        route = rules.route(study_facts.of(study, study.series), self.routing)
        if not route.pack or arriving.has_results(session, study.id):
            return None
        before = now - dt.timedelta(seconds=self.assembly.provisional_quiet_s)
        there = {
            series.id
            for series in arriving.quiet_series(session, study.id, before)
            if self._usable(series.modality, series.images, series.frames)
        }
        untried = {s.id for s in study.series if s.id in there and not s.reason}
        if not untried or len(there) < self.min_series.get(route.pack, 1):
            return None
        if studies.current_analyses(session, study) and "sr" not in self.composition.settings.kinds:
            return None
        rows = [row for row in studies.newest_instances(session, study.id) if row[0].id in there]
        return study.id, route.pack, study_input(study, rows, self.composition.spool)

    def _usable(self, modality: str, images: int, multi_frame: bool) -> bool:
        enough = multi_frame or images >= self.assembly.provisional_min_images
        return modality in IMAGE_MODALITIES and enough

    def _analyse(self, work: _Work, owner: str) -> None:
        """Commit analysis and priority, unless that was done, or there was nothing to read."""
        with reading(self.sessions) as session:
            if studies.current_analyses(session, studies.get(session, work.claim.study_id)):
                return
        settings, started = self.packs[work.pack], time.monotonic()
        findings = self.analyser.analyse(work.given, work.pack)
        if findings.status not in READ:
            self._leave(work, owner, findings.reason or findings.status)
            return
        said = with_thresholds(findings, settings.thresholds)
        now, seconds = self.clock(), time.monotonic() - started
        with self.sessions.begin() as session:
            study = self._owned(session, work, owner)
            if study is None:
                return
            analysed = record.Analysed(
                work.pack, said, seconds, shadow=settings.shadow, provisional=True
            )
            row = record.add(session, study, analysed, self.policy, now)
            decision = record.set_priority(
                session, study, self.policy, now, who=WHO, complete=False
            )
            self.tell(session, study, row, now)
        log.info("study_analysed", pack=work.pack, revision=0, priority=decision.level.value)

    def _compose(self, work: _Work, owner: str) -> None:
        """The provisional report alone: masks and pages come with the full analysis."""
        with reading(self.sessions) as session:
            study = studies.get(session, work.claim.study_id)
            found = studies.current_analyses(session, study)
            if not found or study.revision != 0 or "sr" not in self.composition.settings.kinds:
                return
            context = self.composition.context(session, study, found[0])
        made = self.composition.files(context, ["sr"])
        now, destinations = self.clock(), self.composition.destinations
        with self.sessions.begin() as session:
            row = self._owned(session, work, owner)
            if row is None:
                return
            results = self.composition.record(session, found[0], made, now)
            shadow = found[0].shadow
            outbox.enqueue(session, row, found[0], results, destinations, now, shadow=shadow)
        self.wake_outbox()

    def _leave(self, work: _Work, owner: str, why: str) -> None:
        """These series are not tried again before the study is complete."""
        log.warning("provisional_not_made", why=why)
        tried = {series.series_uid for series in work.given.series}
        with self.sessions.begin() as session:
            study = self._owned(session, work, owner)
            if study is None:
                return
            for series in study.series:
                if series.series_uid in tried:
                    series.reason = f"not analysed provisionally: {why}"
            now, kind = self.clock(), "provisional_not_made"
            studies.note(session, study.id, who=WHO, kind=kind, why=why, now=now)

    def _owned(self, session: Session, work: _Work, owner: str) -> Study | None:
        study = claims.owned(session, work.claim.study_id, owner)
        if study is None or study.revision != 0:
            log.info("provisional_overtaken", why="the study is complete")
            return None
        return study

    def _renew(self, work: _Work, owner: str) -> bool:
        with self.sessions.begin() as session:
            return claims.renew(
                session, work.claim.study_id, owner=owner, lease=self.lease, now=self.clock()
            )

    def _give_back(self, work: _Work, owner: str) -> None:
        with self.sessions.begin() as session:
            study = claims.owned(session, work.claim.study_id, owner)
            if study is not None:
                why, now = "provisional work is done", self.clock()
                claims.give_back(session, study, who=WHO, why=why, now=now)


class ProvisionalWorker:
    """A thread of its own, so that an emergency does not wait for the queue, only for the model."""

    def __init__(self, room: ProvisionalRoom, owner: str) -> None:
        self._room = room
        self._owner = owner
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=owner, daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Finish the study at hand (up to `timeout_s`), then end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                worked = self._room.run_once(self._owner)
            except Exception as error:  # noqa: BLE001  e.g. the database is away: wait, go on
                log.error("provisional_loop_failed", why=faults.describe(error))
                worked = False
            if not worked:
                self._stop.wait(IDLE_S)

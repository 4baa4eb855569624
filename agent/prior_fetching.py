"""Between priority and result objects: the scores of an earlier study that only the archive holds.

The study is fetched into a private directory, read by the same pack, and forgotten: it gets no row
and no place in the worklist. Whatever goes wrong costs the comparison only.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import PRODUCT, faults, prior_archive, priors
from agent.analysis.room import FAMILY_MIN_SERIES
from agent.clock import Clock
from agent.errors import AnalysisInterrupted, ExplanationYielded
from agent.prior_archive import MR, SOP_CLASSES, Archive, Prior, PriorLeftOut, Wanted
from db.engine import reading
from db.models import Analysis, Study
from db.queries import claims, studies
from db.queries import priors as recorded
from dicom_nodes import headers
from dicom_nodes.answers import text
from dicom_nodes.headers import Header
from inference.findings import Findings
from inference.study import SeriesInput, StudyInput

log = structlog.get_logger(__name__)

WHO = "priors"
FAMILY = "prima"
#: How often its analysis starts anew after giving way to another study.
ATTEMPTS = 3


class Analyser(Protocol):
    """The engine, in this process or in its own."""

    def analyse_aside(self, study: StudyInput, pack: str, seconds: float) -> Findings:
        """Findings of a study for which nobody waits."""


@dataclass(frozen=True)
class _Todo:
    """An analysis to compare; the date of the earlier study that it is compared with so far."""

    analysis: str
    pack: str
    known: str


@dataclass
class _Folder:
    """Where instances are put down as they arrive, while there is time and room."""

    path: Path
    low_water_bytes: int
    deadline: float
    files: list[Path] = field(default_factory=list)

    @property
    def left_s(self) -> float:
        """Time that is left.

        Raises:
            PriorLeftOut: none.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise PriorLeftOut("there was no time left; raise priors.timeout_s if it may take more")
        return left

    def take(self, data: bytes) -> None:
        """Keep one Part-10 file."""
        _ = self.left_s
        if shutil.disk_usage(self.path).free < self.low_water_bytes + len(data):
            raise PriorLeftOut("the disk is below storage.low_water_mark_mb; make room")
        path = self.path / f"{len(self.files)}.dcm"
        path.write_bytes(data)
        self.files.append(path)


@dataclass(frozen=True)
class PriorStep:
    """What the step needs: the record, the archive, the models, and what it may cost.

    Attributes:
        packs: names of the packs whose scores are compared.
        directory: fetched studies lie below it while they are read.
    """

    sessions: sessionmaker[Session]
    archive: Archive
    analyser: Analyser
    packs: AbstractSet[str]
    directory: Path
    low_water_bytes: int
    timeout_s: float
    clock: Clock

    def run(self, claim: claims.Claim, owner: str) -> None:
        """Add an earlier study's scores to the claimed study's analyses, where there is one.

        Raises:
            AnalysisInterrupted: the agent stops; the study is given back.
        """
        with reading(self.sessions) as session:
            study = studies.get(session, claim.study_id)
            todo = self._todo(session, study)
            wanted = Wanted(
                study.patient_id, study.issuer_of_patient_id, study.study_uid, study.study_date
            )
        if not todo or not wanted.can_be_asked_for:
            return
        try:
            self._compare(claim, owner, wanted, todo)
        except AnalysisInterrupted:
            raise
        except Exception as error:  # noqa: BLE001  the study goes on without
            why = faults.describe(error)
            log.warning("prior_left_out", study=claim.key, why=why)
            self._tell(claim, owner, "prior_left_out", why)

    def _todo(self, session: Session, study: Study) -> list[_Todo]:
        found = []
        for row in studies.current_analyses(session, study):
            read = row.pack in self.packs and row.status in recorded.READ
            if read and priors.ARCHIVED not in json.loads(row.findings):
                known = recorded.newest(session, study, row)
                found.append(_Todo(row.id, row.pack, known[0].study_date if known else ""))
        return found

    def _compare(
        self, claim: claims.Claim, owner: str, wanted: Wanted, todo: Sequence[_Todo]
    ) -> None:
        deadline = time.monotonic() + self.timeout_s
        until = wanted.study_date
        prior = prior_archive.newest(self.archive.studies(wanted.patient_id, until), wanted)
        newer = [one for one in todo if prior is not None and one.known < prior.date]
        if prior is None or not newer:
            log.info("prior_not_needed", study=claim.key)
            return
        with _private(self.directory) as path:
            folder = _Folder(path, self.low_water_bytes, deadline)
            given = self._fetch(prior, wanted, folder)
            for one in newer:
                said = self._read(given, one.pack, folder)
                self._keep(claim, owner, one, prior, said)

    def _fetch(self, prior: Prior, wanted: Wanted, folder: _Folder) -> StudyInput:
        for series in self.archive.series(prior.study_uid):
            _ = folder.left_s
            uid = text(series.get("SeriesInstanceUID"))
            if uid and text(series.get("Modality")) == MR:
                self.archive.fetch(prior.study_uid, uid, folder.take)
        return _study(prior, wanted, folder.files)

    def _read(self, given: StudyInput, pack: str, folder: _Folder) -> Findings:
        """What the pack says of it, begun anew each time it had to give way, up to `ATTEMPTS`."""
        for _ in range(ATTEMPTS - 1):
            try:
                return _usable(self.analyser.analyse_aside(given, pack, folder.left_s))
            except ExplanationYielded as error:
                log.info("prior_gave_way", pack=pack, why=str(error))
        return _usable(self.analyser.analyse_aside(given, pack, folder.left_s))

    def _keep(
        self, claim: claims.Claim, owner: str, one: _Todo, prior: Prior, said: Findings
    ) -> None:
        with self.sessions.begin() as session:
            study = claims.owned(session, claim.study_id, owner)
            if study is None:
                log.warning("prior_discarded", study=claim.key, why="the lease was lost")
                return
            row = session.get_one(Analysis, one.analysis)
            row.findings = priors.with_archived(row.findings, prior.date, said)
            why = f"{one.pack}: an earlier study was fetched from the archive and read"
            now = self.clock()
            studies.note(session, study.id, who=WHO, kind="prior_read", why=why, now=now)
        log.info("prior_read", study=claim.key, pack=one.pack)

    def _tell(self, claim: claims.Claim, owner: str, kind: str, why: str) -> None:
        with self.sessions.begin() as session:
            study = claims.owned(session, claim.study_id, owner)
            if study is not None:
                studies.note(session, study.id, who=WHO, kind=kind, why=why, now=self.clock())


def sweep(directory: Path, older_than_s: float) -> None:
    """Remove what a killed agent left of fetched studies."""
    for left in directory.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > older_than_s:
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _private(directory: Path) -> Iterator[Path]:
    """A new directory that only we may enter, gone with what is in it after the block."""
    directory.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as path:
        yield Path(path)


def _study(prior: Prior, wanted: Wanted, files: Sequence[Path]) -> StudyInput:
    """The fetched files as the models take them, if they are what was asked for."""
    series: dict[str, list[tuple[Header, Path]]] = {}
    for path in files:
        header = headers.read(path)
        whose = (header.study_uid, header.patient_id, header.issuer_of_patient_id)
        if whose != (prior.study_uid, wanted.patient_id, wanted.issuer_of_patient_id):
            raise PriorLeftOut(
                "the images that the archive sent name another study, patient id or issuer; "
                "they are not used: check the patient's records there"
            )
        if header.sop_class_uid in SOP_CLASSES and header.manufacturer != PRODUCT:
            series.setdefault(header.series_uid, []).append((header, path))
    needed = FAMILY_MIN_SERIES[FAMILY]
    if len(series) < needed:
        raise PriorLeftOut(f"the earlier study has {len(series)} MR series; {needed} are needed")
    given = (
        SeriesInput(uid, MR, found[0][0].series_description, tuple(path for _, path in found))
        for uid, found in series.items()
    )
    return StudyInput(prior.study_uid, MR, tuple(given))


def _usable(said: Findings) -> Findings:
    if said.status not in recorded.READ:
        raise PriorLeftOut(f"the earlier study could not be analysed: {said.reason}")
    return said

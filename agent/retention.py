"""Retention: finished studies leave the spool after their time; the record keeps what was said."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session, sessionmaker

from db.models import (
    Analysis,
    Delivery,
    Draft,
    Event,
    Instance,
    ReadingFeedback,
    Result,
    Series,
    Study,
)
from db.states import OPEN_DELIVERIES, StudyState

log = structlog.get_logger(__name__)

FINAL = (StudyState.DONE, StudyState.SKIPPED)
#: Children before parents.
TABLES = (Draft, Delivery, Result, ReadingFeedback, Event, Analysis, Instance, Series)


def sweep(
    sessions: sessionmaker[Session],
    spool: Path,
    results: Path,
    keep: dt.timedelta,
    now: dt.datetime,
) -> int:
    """Remove studies that ended longer ago than `keep`, rows first, then files.

    Failed studies and studies with open or dead deliveries stay until somebody dealt with them.

    Returns:
        How many studies were removed.
    """
    removed = 0
    for study_id in _expired(sessions, now - keep):
        with sessions.begin() as session:
            study = session.get(Study, study_id, with_for_update=True)
            if study is None or study.state not in FINAL:
                continue
            files, directories = _files(session, study_id, spool, results)
            files += _pictures(directories, results)
            for table in TABLES:
                session.execute(sa.delete(table).where(table.study_id == study_id))
            session.delete(study)
        _remove(files, directories, (spool, results / "pictures"))
        removed += 1
        log.info("study_removed", study=study.key, files=len(files))
    return removed


def _expired(sessions: sessionmaker[Session], before: dt.datetime) -> list[int]:
    kept = sa.select(Delivery.study_id).where(Delivery.state.in_([*OPEN_DELIVERIES, "dead"]))
    query = sa.select(Study.id).where(
        Study.state.in_(FINAL),
        # what was skipped because only our own results came has no end of its own
        sa.func.coalesce(Study.done_at, Study.last_instance_at) < before,
        Study.last_instance_at < before,
        Study.id.not_in(kept),
    )
    with sessions() as session:
        return list(session.execute(query).scalars())


def _files(
    session: Session, study_id: int, spool: Path, results: Path
) -> tuple[list[Path], list[Path]]:
    instances = session.execute(sa.select(Instance.path).where(Instance.study_id == study_id))
    analyses = session.execute(sa.select(Analysis.id).where(Analysis.study_id == study_id))
    return [spool / p for p in instances.scalars()], [results / a for a in analyses.scalars()]


def _pictures(directories: list[Path], results: Path) -> list[Path]:
    """Overlay pictures that the page kept, named by analysis (agent/web/pictures.py)."""
    return [p for d in directories for p in (results / "pictures").glob(f"{d.name}-*.png")]


def _remove(files: list[Path], directories: list[Path], keep: tuple[Path, ...]) -> None:
    parents = set()
    for file in files:
        file.unlink(missing_ok=True)
        parents.add(file.parent)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
    for parent in sorted(parents, key=lambda p: len(p.parts), reverse=True):
        _remove_empty(parent, keep)


def _remove_empty(directory: Path, keep: tuple[Path, ...]) -> None:
    """Remove a directory and its parents while they are empty, up to one that stays."""
    while directory not in keep and any(stop in directory.parents for stop in keep):
        try:
            directory.rmdir()
        except OSError:
            return
        directory = directory.parent

"""Builds the token cache: every study once, on several processes, restartable, with progress."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from inference.errors import InferenceError
from training.data.errors import DataError
from training.data.shards import CacheWriter
from training.data.studies import TokenizedSeries, tokenize_study
from training.data.table import StudyRow
from training.workers import one_thread

log = structlog.get_logger(__name__)

Progress = Callable[[int, int, float], None]
IN_FLIGHT = 4
"""Studies a worker may be ahead; bounds what waits in memory."""


@dataclass(frozen=True)
class BuildReport:
    """What a run did: studies stored, found in the cache, and refused with their reasons."""

    stored: int
    known: int
    refused: dict[str, str]


def build_cache(
    rows: Sequence[StudyRow],
    folder: Path,
    workers: int = 1,
    progress: Progress | None = None,
) -> BuildReport:
    """Tokenize what the cache does not hold yet.

    A study that cannot be read is recorded with its reason and not tried again; delete the cache
    to try all anew.

    Args:
        rows: the studies.
        folder: of the cache.
        workers: processes of one thread each; 1 = in this process.
        progress: told (done, of, seconds left) after every study.
    """
    writer = CacheWriter(folder)
    try:
        missing = [row for row in rows if row.study not in writer.done]
        known = len(rows) - len(missing)
        refused: dict[str, str] = {}
        started = time.monotonic()
        for done, (row, series, reason) in enumerate(_each(missing, workers), start=1):
            writer.add(row.study, series, reason)
            if reason:
                refused[row.study] = reason
                log.warning("study_not_cached", why=reason)
            if progress is not None:
                left = (time.monotonic() - started) / done * (len(missing) - done)
                progress(done, len(missing), left)
    finally:
        writer.close()
    return BuildReport(len(missing) - len(refused), known, refused)


Tokenized = tuple[StudyRow, list[TokenizedSeries], str]


def _each(rows: Sequence[StudyRow], workers: int) -> Iterator[Tokenized]:
    if workers <= 1 or len(rows) < 2:
        yield from (_one(row) for row in rows)
        return
    # Fresh processes: a fork of one that already runs threads may hang.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, initializer=one_thread) as pool:
        waiting: list[concurrent.futures.Future[Tokenized]] = []
        for row in rows:
            waiting.append(pool.submit(_one, row))
            if len(waiting) >= workers * IN_FLIGHT:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _one(row: StudyRow) -> Tokenized:
    try:
        return row, tokenize_study(row), ""
    except (DataError, InferenceError) as error:
        return row, [], str(error)

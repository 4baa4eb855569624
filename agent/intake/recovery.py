"""At start-up: bring spool and record together again after a crash or power loss."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import sqlalchemy as sa
import structlog
from pydicom.errors import InvalidDicomError

from agent.intake import translate
from agent.intake.spool import Spool
from db.models.study import Instance, Study
from db.queries import intake
from db.queries.received import Received
from dicom_nodes import headers, identifiers

log = structlog.get_logger(__name__)

_BATCH = 100


@dataclass(frozen=True)
class Recovered:
    """What `reconcile` found.

    Attributes:
        indexed: files that lacked their row (placed, but never acknowledged) and have it now.
        unreadable: files without row that are no DICOM instances; left where they are.
        missing: rows whose file is gone: data loss, raised as an alarm.
    """

    indexed: int
    unreadable: int
    missing: int


def reconcile(
    spool: Spool,
    engine: sa.Engine,
    *,
    is_own: Callable[[headers.Header], bool] = lambda _header: False,
    now: dt.datetime | None = None,
) -> Recovered:
    """Index files without row, and tell of rows without file; one study at a time."""
    now = now or dt.datetime.now(dt.UTC)
    missing = 0
    orphans: list[str] = []
    on_disk = set(spool.study_directories())
    with engine.connect().execution_options(read_only=True) as connection:
        for study_id, study_uid in connection.execute(sa.select(Study.id, Study.study_uid)).all():
            directory = identifiers.safe_name(study_uid)
            files = spool.files_of(directory) if directory in on_disk else set()
            on_disk.discard(directory)
            rows = set(
                connection.scalars(sa.select(Instance.path).where(Instance.study_id == study_id))
            )
            missing += len(rows - files)
            orphans += sorted(files - rows)
    for directory in on_disk:
        orphans += sorted(spool.files_of(directory))
    indexed, unreadable = _index(spool, engine, orphans, is_own, now)
    if missing:
        log.error("spool_files_missing", count=missing)
    recovered = Recovered(indexed=indexed, unreadable=unreadable, missing=missing)
    log.info("spool_reconciled", indexed=indexed, unreadable=unreadable, missing=missing)
    return recovered


def _index(
    spool: Spool,
    engine: sa.Engine,
    orphans: list[str],
    is_own: Callable[[headers.Header], bool],
    now: dt.datetime,
) -> tuple[int, int]:
    records = list(_records(spool, orphans, is_own, now))
    for start in range(0, len(records), _BATCH):
        batch = records[start : start + _BATCH]
        spool.sync(item.path for item in batch)
        with engine.begin() as connection:
            intake.record(connection, batch)
    return len(records), len(orphans) - len(records)


def _records(
    spool: Spool, orphans: list[str], is_own: Callable[[headers.Header], bool], now: dt.datetime
) -> Iterator[Received]:
    for path in orphans:
        try:
            header, syntax = _read(spool.root / path)
        except headers.UnreadableHeader:
            log.error("spool_file_unreadable")
            continue
        if not (header.study_uid and header.series_uid and header.sop_instance_uid):
            continue
        yield translate.to_record(
            header,
            path=path,
            size_bytes=(spool.root / path).stat().st_size,
            transfer_syntax_uid=syntax,
            calling_ae="",
            received_at=now,
            own_result=is_own(header),
        )


def _read(path: Path) -> tuple[headers.Header, str]:
    header = headers.read(path)
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
    except (InvalidDicomError, OSError) as error:
        raise headers.UnreadableHeader("file meta cannot be read") from error
    return header, str(meta.get("TransferSyntaxUID", ""))

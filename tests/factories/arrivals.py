"""Instances as the storage server hands them to the intake: a temporary file and its head."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from factories import dicom, wire
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session, sessionmaker

from agent.intake.handler import IntakeHandler, IntakeSettings
from agent.intake.spool import Spool
from db.queries.received import Received
from dicom_nodes.received import Peer, ReceivedInstance, StoreRequest
from dicom_nodes.scp import storage

PEER = Peer("SCANNER", "WLAGENT", "127.0.0.1")
NOW = dt.datetime(2026, 11, 23, 8, 30, tzinfo=dt.UTC)


def handler(folder: Path, sessions: sessionmaker[Session], **options: Any) -> IntakeHandler:
    """An intake over `folder`/spool and the sessions' database; the disk is never low."""
    settings = options.pop("settings", IntakeSettings(low_water_bytes=0))
    return IntakeHandler(Spool(folder / "spool"), engine_of(sessions), settings, **options)


def engine_of(sessions: sessionmaker[Session]) -> sa.Engine:
    """The engine behind a session factory."""
    bind: sa.Engine = sessions.kw["bind"]
    return bind


def ct(n: int = 1, **options: Any) -> list[Dataset]:
    """Small CT instances."""
    return dicom.ct_series(n, rows=8, cols=8, **options)


def request(ds: Dataset, **values: str) -> StoreRequest:
    """The C-STORE-RQ of a dataset."""
    defaults = {
        "sop_class_uid": str(ds.SOPClassUID),
        "sop_instance_uid": str(ds.SOPInstanceUID),
        "transfer_syntax_uid": wire.EXPLICIT,
    }
    return StoreRequest(peer=PEER, **{**defaults, **values})


def arrive(
    incoming: Path, ds: Dataset, data: bytes | None = None, **values: str
) -> ReceivedInstance:
    """Write a dataset (or other bytes) as a temporary file and describe it."""
    file = storage.Incoming(incoming, request(ds, **values))
    file.add(memoryview(wire.encode(ds) if data is None else data))
    return file.finish()


def received(nth: int = 1, **values: Any) -> Received:
    """A row for the record; `nth` names the instance."""
    defaults: dict[str, Any] = {
        "study_uid": "1.2.1",
        "series_uid": "1.2.1.1",
        "sop_uid": f"1.2.1.1.{nth}",
        "sop_class_uid": wire.CT,
        "transfer_syntax_uid": wire.EXPLICIT,
        "path": f"1.2.1/1.2.1.1/1.2.1.1.{nth}.dcm",
        "size_bytes": 1000 + nth,
        "received_at": NOW + dt.timedelta(seconds=nth),
        "calling_ae": "SCANNER",
        "number": nth,
    }
    return Received(**{**defaults, **values})

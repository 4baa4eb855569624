"""Housekeeping of the spool: interrupted transfers, old quarantine, missing digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from agent.intake.spool import Spool
from db.models.study import Instance

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class JanitorSettings:
    """How long leftovers stay.

    Attributes:
        keep_incoming_s: temporary files of interrupted transfers.
        keep_quarantine_s: instances that could not be understood.
    """

    keep_incoming_s: float = 15 * 60
    keep_quarantine_s: float = 30 * 86400


def sweep(spool: Spool, settings: JanitorSettings, now_s: float | None = None) -> int:
    """Remove what is older than allowed; run at start and hourly. Returns how many files."""
    interrupted = spool.sweep(spool.incoming, settings.keep_incoming_s, now_s)
    refused = spool.sweep(spool.quarantine, settings.keep_quarantine_s, now_s)
    if interrupted or refused:
        log.info("spool_swept", interrupted=interrupted, quarantined=refused)
    return interrupted + refused


def digest_pending(session: Session, spool: Spool, limit: int = 200) -> int:
    """Fill in the SHA-256 of up to `limit` instances that lack it; returns how many.

    Off the acknowledgement path: a digest costs about as much CPU as receiving the image does.
    """
    rows = session.execute(
        sa.select(Instance.id, Instance.path)
        .where(Instance.sha256.is_(None))
        .order_by(Instance.id)
        .limit(limit)
    ).all()
    session.rollback()  # no lock is held while files are read
    digests = []
    for instance_id, path in rows:
        file = spool.root / path
        if not file.is_file():  # retention was faster
            continue
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        digests.append({"id": instance_id, "sha256": digest})
    if digests:
        session.execute(sa.update(Instance), digests)
        session.commit()
    return len(digests)

"""Storage commitment transactions by name, asked by us (``scu``) or asked of us (``scp``).

Every function takes a session and leaves the commit to its caller.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import CommitmentTransaction, Instance

SCU, SCP = "scu", "scp"
OPEN, REPORTED, DEAD = "open", "reported", "dead"

_CHUNK = 500

References = Sequence[tuple[str, str]]
"""(SOP class UID, SOP instance UID)."""


def add(
    session: Session,
    transaction_uid: str,
    role: str,
    peer: str,
    references: Iterable[tuple[str, str]],
    now: dt.datetime,
) -> CommitmentTransaction:
    """Keep a new transaction."""
    row = CommitmentTransaction(
        transaction_uid=transaction_uid,
        role=role,
        peer=peer,
        references=json.dumps(list(references)),
        state=OPEN,
        next_attempt_at=now,
        created_at=now,
    )
    session.add(row)
    session.flush()
    return row


def find(
    session: Session, transaction_uid: str, role: str, peer: str | None = None
) -> CommitmentTransaction | None:
    """A transaction, locked; without a peer, the one of that UID."""
    query = sa.select(CommitmentTransaction).where(
        CommitmentTransaction.transaction_uid == transaction_uid, CommitmentTransaction.role == role
    )
    if peer is not None:
        query = query.where(CommitmentTransaction.peer == peer)
    return session.execute(query.with_for_update()).scalars().first()


def references_of(row: CommitmentTransaction) -> list[tuple[str, str]]:
    """What the transaction is about."""
    return [(sop_class, sop_uid) for sop_class, sop_uid in json.loads(row.references)]


def due(session: Session, now: dt.datetime, limit: int = 50) -> Sequence[CommitmentTransaction]:
    """Requests of peers whose report is due, oldest first."""
    query = (
        sa.select(CommitmentTransaction)
        .where(
            CommitmentTransaction.role == SCP,
            CommitmentTransaction.state == OPEN,
            CommitmentTransaction.next_attempt_at <= now,
        )
        .order_by(CommitmentTransaction.next_attempt_at, CommitmentTransaction.id)
        .limit(limit)
    )
    return session.execute(query).scalars().all()


def count_open(session: Session, peer: str) -> int:
    """How many requests of a peer wait for their report."""
    query = sa.select(sa.func.count(CommitmentTransaction.id)).where(
        CommitmentTransaction.role == SCP,
        CommitmentTransaction.peer == peer,
        CommitmentTransaction.state == OPEN,
    )
    return session.execute(query).scalar_one()


@dataclass(frozen=True)
class Stored:
    """What the record says of an instance we received: its newest version."""

    sop_class_uid: str
    path: str
    size_bytes: int
    sha256: str | None


def stored(session: Session, sop_uids: Sequence[str]) -> dict[str, Stored]:
    """Received instances by SOP Instance UID, the newest version of each."""
    found: dict[str, Stored] = {}
    for start in range(0, len(sop_uids), _CHUNK):
        query = (
            sa.select(Instance)
            .where(Instance.sop_uid.in_(sop_uids[start : start + _CHUNK]))
            .order_by(Instance.version)
        )
        for row in session.execute(query).scalars():
            found[row.sop_uid] = Stored(row.sop_class_uid, row.path, row.size_bytes, row.sha256)
    return found


def close(
    row: CommitmentTransaction, now: dt.datetime, *, state: str = REPORTED, why: str = ""
) -> None:
    """End a transaction."""
    row.state, row.closed_at, row.last_error = state, now, why


def purge(session: Session, before: dt.datetime) -> int:
    """Forget transactions older than that; returns how many."""
    result = session.execute(
        sa.delete(CommitmentTransaction).where(CommitmentTransaction.created_at < before)
    )
    return int(getattr(result, "rowcount", 0))

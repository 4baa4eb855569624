"""The audit trail: written, listed, sent, and let go when it is old.

Every function takes a session and leaves the commit to its caller.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import AuditEvent, Study

PAGE = 500


def study(session: Session, reference: str) -> Study | None:
    """A study by key, UID or database id, whichever a route names it by."""
    condition = sa.or_(Study.key == reference, Study.study_uid == reference)
    found = session.execute(sa.select(Study).where(condition)).scalars().first()
    if found is None and reference.isdecimal() and len(reference) <= 9:
        found = session.get(Study, int(reference))
    return found


def waiting(session: Session, limit: int) -> Sequence[AuditEvent]:
    """What the audit repository has not taken yet, oldest first."""
    query = (
        sa.select(AuditEvent)
        .where(AuditEvent.sent_at.is_(None))
        .order_by(AuditEvent.id)
        .limit(limit)
    )
    return session.execute(query).scalars().all()


def count_waiting(session: Session) -> int:
    """How much waits."""
    query = sa.select(sa.func.count()).where(AuditEvent.sent_at.is_(None))
    return int(session.execute(query).scalar_one())


def mark_sent(session: Session, ids: Sequence[int], now: dt.datetime) -> None:
    """The repository took these."""
    session.execute(sa.update(AuditEvent).where(AuditEvent.id.in_(ids)).values(sent_at=now))


def last(session: Session, kind: str) -> AuditEvent | None:
    """The newest event of a kind."""
    query = sa.select(AuditEvent).where(AuditEvent.kind == kind).order_by(AuditEvent.id.desc())
    return session.execute(query.limit(1)).scalar_one_or_none()


def listing(
    session: Session,
    *,
    since: dt.datetime | None = None,
    who: str = "",
    kind: str = "",
    study_uid: str = "",
    limit: int = 100,
) -> Sequence[AuditEvent]:
    """Newest first, restricted by what is given."""
    query = _restricted(since, who, kind, study_uid).order_by(AuditEvent.id.desc()).limit(limit)
    return session.execute(query).scalars().all()


def export(session: Session, *, since: dt.datetime | None = None) -> Iterator[AuditEvent]:
    """All, oldest first, a page at a time."""
    after = 0
    while True:
        query = _restricted(since, "", "", "").where(AuditEvent.id > after)
        page = session.execute(query.order_by(AuditEvent.id).limit(PAGE)).scalars().all()
        if not page:
            return
        yield from page
        after = page[-1].id
        session.expunge_all()


def purge(session: Session, before: dt.datetime, *, keep_waiting: bool) -> int:
    """Remove what is older; with `keep_waiting` never what still has to be sent."""
    condition = AuditEvent.at < before
    if keep_waiting:
        condition = sa.and_(condition, AuditEvent.sent_at.is_not(None))
    result = session.execute(sa.delete(AuditEvent).where(condition))
    return int(getattr(result, "rowcount", 0))


def _restricted(
    since: dt.datetime | None, who: str, kind: str, study_uid: str
) -> sa.Select[AuditEvent]:
    query = sa.select(AuditEvent)
    if since:
        query = query.where(AuditEvent.at >= since)
    for column, value in (
        (AuditEvent.who, who),
        (AuditEvent.kind, kind),
        (AuditEvent.study_uid, study_uid),
    ):
        if value:
            query = query.where(column == value)
    return query

"""Performed steps and availability notices by name: kept before, after or without their study.

Every function takes a session and leaves the commit to its caller.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import AvailabilityNotice, Instance, PerformedStep, Result, Series, Study

SeriesList = Sequence[tuple[str, Sequence[str]]]
"""(series UID, SOP Instance UIDs) pairs."""

#: Notices of one study that are kept; an archive that repeats itself for ever replaces its oldest.
MAX_NOTICES = 200


def steps(session: Session, sop_uid: str) -> Sequence[PerformedStep]:
    """The rows of one step, locked."""
    query = sa.select(PerformedStep).where(PerformedStep.sop_uid == sop_uid)
    return session.execute(query.order_by(PerformedStep.id).with_for_update()).scalars().all()


def add_step(
    session: Session,
    *,
    sop_uid: str,
    study_uids: Collection[str],
    status: str,
    calling_ae: str,
    series: SeriesList,
    created: bool,
    now: dt.datetime,
) -> None:
    """Keep a step: a row per study, or one of an unknown study."""
    for study_uid in study_uids or ("",):
        session.add(
            PerformedStep(
                sop_uid=sop_uid,
                study_uid=study_uid,
                status=status,
                created=created,
                calling_ae=calling_ae,
                references=_dump(series),
                received_at=now,
                changed_at=now,
            )
        )
    session.flush()


def change_step(
    row: PerformedStep, *, status: str | None, series: SeriesList | None, now: dt.datetime
) -> None:
    """Take over what an update says; what it does not say stays."""
    row.status = status or row.status
    if series is not None:
        row.references = _dump(series)
    row.changed_at = now


def steps_of(session: Session, study_uid: str) -> Sequence[PerformedStep]:
    """The steps of a study."""
    query = sa.select(PerformedStep).where(PerformedStep.study_uid == study_uid)
    return session.execute(query.order_by(PerformedStep.id)).scalars().all()


def adopt_steps(session: Session) -> int:
    """Give steps of unknown study the study that has one of their series; returns how many."""
    orphans = session.execute(
        sa.select(PerformedStep).where(PerformedStep.study_uid == "").limit(500)
    ).scalars()
    adopted = 0
    for row in orphans:
        series = [series_uid for series_uid, _ in json.loads(row.references) if series_uid][:50]
        query = sa.select(Study.study_uid).join(Series).where(Series.series_uid.in_(series))
        study_uid = session.execute(query.limit(1)).scalar_one_or_none() if series else None
        if study_uid is not None:
            row.study_uid = study_uid
            adopted += 1
    return adopted


def has_orphans(session: Session) -> bool:
    """Whether a step waits for its study to be known."""
    query = sa.select(PerformedStep.id).where(PerformedStep.study_uid == "")
    return session.execute(query.limit(1)).first() is not None


def add_notice(
    session: Session,
    *,
    sop_uid: str,
    study_uid: str,
    calling_ae: str,
    series: SeriesList,
    now: dt.datetime,
) -> bool:
    """Keep a notice; False when it was kept before."""
    known = sa.select(AvailabilityNotice.id).where(AvailabilityNotice.sop_uid == sop_uid)
    if session.execute(known).first() is not None:
        return False
    older = notices_of(session, study_uid)
    for row in older[: max(0, len(older) - MAX_NOTICES + 1)]:
        session.delete(row)
    session.add(
        AvailabilityNotice(
            sop_uid=sop_uid,
            study_uid=study_uid,
            calling_ae=calling_ae,
            references=_dump(series),
            received_at=now,
        )
    )
    session.flush()
    return True


def notices_of(session: Session, study_uid: str) -> Sequence[AvailabilityNotice]:
    """The notices about a study, oldest first."""
    query = sa.select(AvailabilityNotice).where(AvailabilityNotice.study_uid == study_uid)
    return session.execute(query.order_by(AvailabilityNotice.id)).scalars().all()


def instances_in(references: str) -> set[str]:
    """SOP Instance UIDs in a row's references."""
    return {uid for _, uids in json.loads(references) for uid in uids}


def series_in(references: str) -> list[tuple[str, list[str]]]:
    """A row's references as they were given."""
    return [(series_uid, list(uids)) for series_uid, uids in json.loads(references)]


def received_instances(session: Session, study_id: int) -> set[str]:
    """SOP Instance UIDs that were received of a study, in whatever series."""
    query = sa.select(Instance.sop_uid).where(Instance.study_id == study_id)
    return set(session.execute(query).scalars())


def own_instances(session: Session, study_id: int) -> set[str]:
    """SOP Instance UIDs of the objects this agent made of a study."""
    return set(session.execute(sa.select(Result.sop_uid).filter_by(study_id=study_id)).scalars())


def series_counts(session: Session, study_id: int) -> list[tuple[str, int]]:
    """(description and protocol, instances) of each received series, our own left out."""
    query = (
        sa.select(Series.description, Series.protocol, sa.func.count(sa.distinct(Instance.sop_uid)))
        .join(Instance, Instance.series_id == Series.id)
        .where(Series.study_id == study_id, Series.own_result.is_(False))
        .group_by(Series.id, Series.description, Series.protocol)
        .order_by(Series.id)
    )
    return [(f"{row[0]} {row[1]}", int(row[2])) for row in session.execute(query)]


def purge(session: Session, before: dt.datetime) -> int:
    """Forget steps and notices older than that; returns how many."""
    total = 0
    for table, column in (
        (PerformedStep, PerformedStep.changed_at),
        (AvailabilityNotice, AvailabilityNotice.received_at),
    ):
        result = session.execute(sa.delete(table).where(column < before))
        total += int(getattr(result, "rowcount", 0))
    return total


def _dump(series: SeriesList) -> str:
    return json.dumps([[series_uid, list(uids)] for series_uid, uids in series])

"""Studies and series while they arrive: for what is done before a study is complete."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session, selectinload

from db.models import Instance, Result, Series, Study
from db.states import StudyState

#: SOP classes whose instances hold many frames: Enhanced CT, Enhanced MR, legacy converted ones.
MULTI_FRAME = (
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.4.4",
)


@dataclass(frozen=True)
class ArrivingSeries:
    """A series as far as it is here."""

    id: int
    modality: str
    images: int
    frames: bool
    """Whether its instances hold many frames."""


def unassembled(session: Session) -> Sequence[Study]:
    """Studies that are received for the first time, with their series."""
    query = (
        sa.select(Study)
        .where(Study.state == StudyState.RECEIVING, Study.revision == 0, Study.instance_count > 0)
        .options(selectinload(Study.series))
    )
    return session.scalars(query).all()


def quiet_series(session: Session, study_id: int, before: dt.datetime) -> list[ArrivingSeries]:
    """Series of the study of which nothing has come since; our own results left out."""
    query = (
        sa.select(
            Series.id,
            Series.modality,
            sa.func.count(sa.distinct(Instance.sop_uid)),
            sa.func.max(sa.case((Instance.sop_class_uid.in_(MULTI_FRAME), 1), else_=0)),
        )
        .join(Instance, Instance.series_id == Series.id)
        .where(Series.study_id == study_id, Series.own_result.is_(False))
        .group_by(Series.id, Series.modality)
        .having(sa.func.max(Instance.received_at) <= before)
        .order_by(Series.id)
    )
    return [ArrivingSeries(row[0], row[1], row[2], bool(row[3])) for row in session.execute(query)]


def has_results(session: Session, study_id: int) -> bool:
    """Whether any object was made of the study."""
    query = sa.select(Result.id).where(Result.study_id == study_id).limit(1)
    return session.execute(query).first() is not None

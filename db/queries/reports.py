"""Which report replaces which: the SRs of a study, their editions, and what left the house."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.models import Analysis, Delivery, Result
from db.states import DeliveryState

SR = "sr"
#: An archive has it, or is about to: a later report must name it.
LEFT = (
    DeliveryState.SENDING,
    DeliveryState.SENT,
    DeliveryState.COMMITTED,
    DeliveryState.DELIVERED,
)


def predecessors(session: Session, analysis: Analysis, editions: Sequence[str]) -> list[str]:
    """Paths of the reports that a new one of this analysis replaces, newest last.

    Only those that left the house: a reference to a report that no archive holds would lead its
    reader nowhere. A report of a pack that reads the study no more is replaced by the first one.

    Args:
        session: of the record.
        analysis: whose report is to be made.
        editions: labels of this analysis' own reports that come before it.
    """
    left = sa.exists().where(Delivery.result_id == Result.id, Delivery.state.in_(LEFT))
    same = sa.select(Analysis).where(
        Analysis.study_id == analysis.study_id, Analysis.revision == analysis.revision
    )
    rows = session.scalars(same.order_by(Analysis.created_at, Analysis.id)).all()
    mine = Analysis.pack == analysis.pack
    if not rows or rows[0].id == analysis.id:
        mine = sa.or_(mine, Analysis.pack.not_in([row.pack for row in rows]))
    earlier = sa.and_(Analysis.revision < analysis.revision, mine)
    own = sa.and_(Analysis.id == analysis.id, Result.label.in_(editions))
    query = (
        sa.select(Result.path)
        .join(Analysis, Analysis.id == Result.analysis_id)
        .where(Result.study_id == analysis.study_id, Result.kind == SR, left)
        .where(sa.or_(earlier, own))
        .order_by(Analysis.revision, Result.id)
    )
    return list(session.execute(query).scalars())


def supersede_unsent(session: Session, analysis: Analysis, editions: Sequence[str]) -> None:
    """Stop this analysis' own earlier reports where nobody has sent them yet."""
    older = sa.select(Result.id).where(
        Result.analysis_id == analysis.id, Result.kind == SR, Result.label.in_(editions)
    )
    session.execute(
        sa.update(Delivery)
        .where(Delivery.result_id.in_(older), Delivery.state == DeliveryState.PENDING)
        .values(state=DeliveryState.SUPERSEDED)
    )


def of_analysis(session: Session, analysis: Analysis) -> Sequence[Result]:
    """Every object that was made of an analysis, in the order it was made."""
    query = sa.select(Result).where(Result.analysis_id == analysis.id).order_by(Result.id)
    return session.scalars(query).all()

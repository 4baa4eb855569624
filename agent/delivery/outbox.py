"""The outbox: what rooms put in, what operators may order, and what is done with each row.

A row is claimed with a lease, sent, and recorded in a second transaction. A crash between the two
sends the same bytes under the same SOP Instance UID again, which every destination keeps once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from sqlalchemy.orm import Session

from agent.errors import DeliveryError
from agent.settings import Destination
from db.models import Analysis, Delivery, Result, Study
from db.queries import outbox as rows
from db.queries import studies
from db.queries.outbox import Target
from db.states import DeliveryState, StudyState

WHO = "delivery"
OPERATOR = "operator"


def enqueue(
    session: Session,
    study: Study,
    analysis: Analysis,
    results: Sequence[Result],
    destinations: Sequence[Destination],
    now: dt.datetime,
    *,
    shadow: bool,
) -> list[Delivery]:
    """Add a row per object and destination; settles a delivering study that pushes nothing.

    Repeatable. `shadow` puts every row on record without sending it; so does a destination's own.
    """
    targets = [Target(d.name, d.send, shadow or d.shadow) for d in destinations]
    made = rows.enqueue(session, analysis, results, targets, now)
    rows.settle(session, study, who=WHO, now=now)
    return made


def retry_delivery(
    session: Session, delivery_id: int, now: dt.datetime, *, who: str = OPERATOR
) -> DeliveryState:
    """Make a dead letter due again, or a waiting delivery due now; returns its state.

    Raises:
        DeliveryError: there is no such delivery, or nothing about it to retry.
    """
    row = session.get(Delivery, delivery_id)
    if row is None:
        raise DeliveryError(
            f"no delivery {delivery_id}; see: worklist-agent deliveries list", permanent=True
        )
    if not _revive(session, row, who, now):
        raise DeliveryError(
            f"delivery {delivery_id} is {row.state}: nothing to retry", permanent=True
        )
    return DeliveryState(row.state)


def retry_dead(
    session: Session,
    now: dt.datetime,
    *,
    destination: str | None = None,
    who: str = OPERATOR,
) -> int:
    """Make all dead letters (of one destination) due again; returns how many."""
    return sum(_revive(session, row, who, now) for row in rows.dead(session, destination))


def _revive(session: Session, row: Delivery, who: str, now: dt.datetime) -> bool:
    # the study first, as everybody who locks both: the other order could deadlock
    study = rows.locked_study(session, row.study_id)
    session.refresh(row, with_for_update=True)
    if row.state not in {DeliveryState.DEAD, DeliveryState.PENDING}:
        return False
    why = f"{row.kind} to {row.destination}"
    studies.note(session, study.id, who=who, kind="delivery_retried", why=why, now=now)
    rows.revive(session, row, now)
    of_current = row.analysis_id in {r.analysis_id for r in rows.current(session, study)}
    if study.state == StudyState.FAILED and of_current:
        why = "a dead delivery is tried again"
        studies.move(session, study, StudyState.DELIVERING, who=who, why=why, now=now)
    return True

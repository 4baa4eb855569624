"""The outbox: what rooms put in, what operators may order, and what is done with each row.

A row is claimed with a lease, sent, and recorded in a second transaction. A crash between the two
sends the same bytes under the same SOP Instance UID again, which every destination keeps once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from sqlalchemy.orm import Session

from agent.delivery import announcements
from agent.delivery.announcements import Kind
from agent.errors import DeliveryError
from agent.settings import MESSAGE_DESTINATIONS, Destination, Level
from db.models import Analysis, Delivery, Result, Study
from db.queries import announcements as messages
from db.queries import outbox as rows
from db.queries import studies
from db.queries.outbox import Target
from db.states import UNPROVEN_DELIVERIES, DeliveryState, StudyState

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


def announce(
    session: Session,
    study: Study,
    analysis: Analysis,
    destinations: Sequence[Destination],
    now: dt.datetime,
    *,
    kind: Kind = Kind.PRIORITY,
    ordered: Level | None = None,
    occasion: str = "",
    shadow: bool | None = None,
) -> list[Delivery]:
    """Add a row per destination that is to be told; call it where the news is committed.

    Repeatable: the same analysis, kind and occasion is one row. Older news that nobody has sent is
    superseded, also where the new state is not worth telling.

    Args:
        session: in the transaction that commits the news.
        study: with its new priority.
        analysis: the news is about.
        destinations: all that are configured.
        now: the time of the news.
        kind: priority or report.
        ordered: the level the order asked for; a priority at that level is no news.
        occasion: what made the same analysis news again, see `announcements.control_id`.
        shadow: record, do not send; None = as the analysis says. So does a destination's own.
    """
    message = messages.Message(
        study_id=study.id,
        analysis_id=analysis.id,
        kind=kind,
        subject=announcements.control_id(analysis.id, kind, occasion),
        identity=announcements.write_identity(announcements.identity_of(study)),
    )
    withheld = analysis.shadow if shadow is None else shadow
    level = Level(analysis.priority if withheld else study.priority or analysis.priority)
    session.flush()
    made = []
    for destination in destinations:
        if destination.kind not in MESSAGE_DESTINATIONS or kind not in destination.send:
            continue
        if not withheld:
            messages.supersede(session, message, destination.name)
        told = messages.told_before(session, study.id, destination.name, kind)
        news = announcements.worth_telling(level, ordered, told_before=told)
        if kind is Kind.REPORT or news or not destination.only_raised:
            silent = withheld or destination.shadow
            made.append(messages.add(session, message, destination.name, now, shadow=silent))
    session.flush()
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
    if row.state in UNPROVEN_DELIVERIES:  # it is there already: only the question is repeated now
        row.next_attempt_at = now
        return True
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

"""What subscribers are told: a row per subscriber and event, in the transaction of the change."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import structlog
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session

from agent.workitems import content
from db.models import Workitem, WorkitemEvent, WorkitemSubscription
from db.queries import workitems as rows
from dicom_nodes.errors import NodeError
from dicom_nodes.scp import matching
from dicom_nodes.ups import FILTERED_GLOBAL, GLOBAL, EventType, State

log = structlog.get_logger(__name__)


def report_state(session: Session, row: Workitem, now: dt.datetime) -> None:
    """UPS State Report; also when the priority changed, for which there is no event of its own."""
    _put(session, row, EventType.STATE_REPORT, state_report(row), now)


def report_progress(session: Session, row: Workitem, now: dt.datetime) -> None:
    """UPS Progress Report, with what the performer said."""
    ds = content.read(row)
    info = Dataset()
    info.ProcedureStepProgressInformationSequence = (
        ds.get("ProcedureStepProgressInformationSequence") or []
    )
    _put(session, row, EventType.PROGRESS_REPORT, info, now)


def request_cancel(
    session: Session, row: Workitem, asked: Dataset, who: str, now: dt.datetime
) -> None:
    """UPS Cancel Requested: the performer, who has subscribed, decides."""
    info = Dataset()
    info.RequestingAE = who[:16]
    for keyword in (
        "ReasonForCancellation",
        "ProcedureStepDiscontinuationReasonCodeSequence",
        "ContactURI",
        "ContactDisplayName",
    ):
        if keyword in asked:
            setattr(info, keyword, asked[keyword].value)
    _put(session, row, EventType.CANCEL_REQUESTED, info, now)


def first_report(session: Session, row: Workitem, ae_title: str, now: dt.datetime) -> None:
    """A new subscriber learns the state that there is (CC.2.3.3)."""
    _add(session, row, ae_title, EventType.STATE_REPORT, state_report(row), now)


def state_report(row: Workitem) -> Dataset:
    """Event information of a state report."""
    ds = content.read(row)
    info = Dataset()
    info.InputReadinessState = str(ds.get("InputReadinessState") or "READY")
    info.ProcedureStepState = row.state
    progress = ds.get("ProcedureStepProgressInformationSequence") or []
    if row.state == State.CANCELED and progress:
        for keyword in ("ReasonForCancellation", "ProcedureStepDiscontinuationReasonCodeSequence"):
            if keyword in progress[0]:
                setattr(info, keyword, progress[0][keyword].value)
    return info


def subscribers(session: Session, row: Workitem) -> Iterator[str]:
    """Who is to be told of this workitem: its own subscribers, and those of all that want it."""
    found = rows.subscriptions(session, [row.uid, GLOBAL, FILTERED_GLOBAL])
    own = {s.ae_title: s.active for s in found if s.target == row.uid}
    wanted = {
        s.ae_title: True
        for s in found
        if s.target != row.uid and (s.up_to is None or row.id <= s.up_to) and _matches(s, row)
    }
    return (ae for ae, active in {**wanted, **own}.items() if active)


def _matches(subscription: WorkitemSubscription, row: Workitem) -> bool:
    if subscription.target != FILTERED_GLOBAL:
        return True
    try:
        return matching.matches(Dataset.from_json(subscription.keys or "{}"), content.read(row))
    except NodeError:
        return False


def _put(session: Session, row: Workitem, kind: EventType, info: Dataset, now: dt.datetime) -> None:
    for ae_title in subscribers(session, row):
        _add(session, row, ae_title, kind, info, now)


def _add(
    session: Session,
    row: Workitem,
    ae_title: str,
    kind: EventType,
    info: Dataset,
    now: dt.datetime,
) -> None:
    session.add(
        WorkitemEvent(
            ae_title=ae_title,
            workitem_uid=row.uid,
            type=int(kind),
            content=info.to_json(),
            next_attempt_at=now,
            created_at=now,
        )
    )

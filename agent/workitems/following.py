"""A study and its reading task are one: both change in the same transaction.

`follow` is called where the priority changes (`agent.analysis.record.set_priority`,
`agent.reading.set_level`), and `follow_reading` where the reading state does
(`agent.web.feedback.set_reading_state`). What changes a study elsewhere (its first image, a merged
patient) is followed by the sweep within seconds.
"""

from __future__ import annotations

import datetime as dt
import uuid

from pydicom.dataset import Dataset
from sqlalchemy.orm import Session, sessionmaker

from agent.reading_order import level_of
from agent.settings import Level, PrioritySettings
from agent.workitems import content, events, rules
from db.models import Study, Workitem
from db.queries import orders
from db.queries import workitems as rows
from db.states import ReadingState
from dicom_nodes.ups import FINAL, State

_BATCH = 200

#: The state of a reading task that says the same as a reading state.
STATES = {
    ReadingState.UNREAD: State.SCHEDULED,
    ReadingState.READING: State.IN_PROGRESS,
    ReadingState.READ: State.COMPLETED,
}


def follow(
    session: Session,
    study: Study,
    now: dt.datetime,
    policy: PrioritySettings | None = None,
) -> Workitem | None:
    """Bring the study's reading task to what the study says; it is made where there is none.

    Args:
        session: the transaction that changed the study.
        study: as it is now.
        now: the time of the change.
        policy: what an order's priority means; needed while the study has no level of its own.
    """
    row = rows.newest_of_study(session, study.study_uid)
    level = level_of(study.priority, study.ordered_priority, policy or PrioritySettings())
    wanted = STATES[ReadingState(study.reading_state)]
    if row is None and wanted is State.COMPLETED:
        return None  # read before there were workitems
    if row is None or (State(row.state) in FINAL and wanted not in FINAL):
        row = _schedule(session, study, level, now, number=row.number + 1 if row else 1)
    elif State(row.state) not in FINAL:
        _update(session, row, study, level, now)
    return _bring_to(session, row, study, wanted, level, now)


def follow_reading(session: Session, study: Study, now: dt.datetime) -> None:
    """As `follow`, when only the reading state changed."""
    row = rows.newest_of_study(session, study.study_uid)
    if row is None:
        return
    level = next(lv for lv in Level if lv.rank >= min(row.rank, Level.LOW.rank))
    wanted = STATES[ReadingState(study.reading_state)]
    if State(row.state) in FINAL and wanted not in FINAL:
        row = _schedule(session, study, level, now, number=row.number + 1)
    _bring_to(session, row, study, wanted, level, now)


def catch_up(sessions: sessionmaker[Session], policy: PrioritySettings, now: dt.datetime) -> int:
    """Follow studies that changed without their reading task; returns how many."""
    ordered = {name: level.rank for name, level in policy.ordered.items()}
    with sessions() as session:
        behind = rows.behind(session, ordered, policy.unread_failure.rank, _BATCH)
    for study_id in behind:
        with sessions.begin() as session:
            study = session.get(Study, study_id, with_for_update=True)
            if study is not None:
                follow(session, study, now, policy)
    return len(behind)


def finish(row: Workitem, ds: Dataset, state: State, now: dt.datetime) -> None:
    """Add what the final state requires and its performer left out (fill in, never replace)."""
    if state is State.CANCELED:
        progress = list(ds.get("ProcedureStepProgressInformationSequence") or [Dataset()])
        if not progress[0].get("ProcedureStepCancellationDateTime"):
            progress[0].ProcedureStepCancellationDateTime = content.moment(now)
        ds.ProcedureStepProgressInformationSequence = progress
        return
    performed = list(ds.get("UnifiedProcedureStepPerformedProcedureSequence") or [Dataset()])
    first = performed[0]
    missing = rules.lacks(ds, state)
    if "PerformedProcedureStepStartDateTime" in missing:
        first.PerformedProcedureStepStartDateTime = content.moment(row.changed_at)
    if "PerformedProcedureStepEndDateTime" in missing:
        first.PerformedProcedureStepEndDateTime = content.moment(now)
    if "PerformedWorkitemCodeSequence" in missing:
        first.PerformedWorkitemCodeSequence = [content.interpretation()]
    for keyword in ("PerformedStationNameCodeSequence", "OutputInformationSequence"):
        if keyword not in first:
            setattr(first, keyword, [])
    ds.UnifiedProcedureStepPerformedProcedureSequence = performed


def set_state(session: Session, row: Workitem, state: State, now: dt.datetime) -> None:
    """Change the state and tell subscribers."""
    row.state = state.value
    row.changed_at = now
    events.report_state(session, row, now)


def _schedule(
    session: Session, study: Study, level: Level, now: dt.datetime, *, number: int
) -> Workitem:
    uid = content.uid_of(study.study_uid, str(number))
    row = Workitem(
        uid=uid,
        study_uid=study.study_uid,
        own=True,
        number=number,
        state=State.SCHEDULED.value,
        rank=level.rank,
        created_at=now,
        changed_at=now,
    )
    order = orders.of_study(session, study)
    task = content.of_study(study, order, level, uid)
    content.write(row, content.new(content.dataset(task, now)))
    rows.add(session, row)
    events.report_state(session, row, now)
    return row


def _update(session: Session, row: Workitem, study: Study, level: Level, now: dt.datetime) -> None:
    """Take over what the study says; what the performer said stays."""
    held = content.read(row)
    label = str(held.get("WorklistLabel") or "READING")
    order = orders.of_study(session, study)
    fresh = content.dataset(content.of_study(study, order, level, row.uid, label), now)
    told = ("ScheduledProcedureStepPriority", "CommentsOnTheScheduledProcedureStep")
    news = any(held.get(name) != fresh.get(name) for name in (*told, "InputReadinessState"))
    held.update(fresh)
    content.write(row, held)
    row.rank, row.changed_at = level.rank, now
    if news:
        events.report_state(session, row, now)


def _bring_to(
    session: Session,
    row: Workitem,
    study: Study,
    wanted: State,
    level: Level,
    now: dt.datetime,
) -> Workitem:
    """The legal way to a state: a task that is put back is canceled, and another is scheduled."""
    state = State(row.state)
    if state is State.SCHEDULED and wanted is not State.SCHEDULED:
        row.transaction_uid = f"2.25.{uuid.uuid4().int}"  # performed by our own page
        set_state(session, row, State.IN_PROGRESS, now)
    if State(row.state) is not State.IN_PROGRESS or wanted is State.IN_PROGRESS:
        return row
    final = State.CANCELED if wanted is State.SCHEDULED else State.COMPLETED
    ds = content.read(row)
    finish(row, ds, final, now)
    content.write(row, ds)
    set_state(session, row, final, now)
    if final is State.CANCELED:
        return _schedule(session, study, level, now, number=row.number + 1)
    return row

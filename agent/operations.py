"""What operators ask and order, from the command line and the web page alike."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent.assembly import sweep
from agent.errors import AgentError
from db.models import Analysis, Delivery, Event, Study
from db.queries import studies
from db.states import StudyState

WHO = "operator"


class UnknownStudy(AgentError):
    """No such study in the database."""

    permanent = True


class NothingToRetry(AgentError):
    """The study is not in a state from which it can be retried."""

    permanent = True


def find_study(session: Session, reference: str) -> Study:
    """The study by id or StudyInstanceUID.

    Raises:
        UnknownStudy: neither matches.
    """
    condition = Study.study_uid == reference
    if reference.isdecimal() and len(reference) < 18:
        condition = sa.or_(condition, Study.id == int(reference))
    study = session.execute(sa.select(Study).where(condition)).scalars().first()
    if study is None:
        raise UnknownStudy(f"no study {reference}; see: worklist-agent studies list")
    return study


def list_studies(session: Session, state: str | None, limit: int) -> list[dict[str, Any]]:
    """Studies, newest first, without patient data."""
    query = sa.select(Study).order_by(Study.last_instance_at.desc()).limit(limit)
    if state:
        query = query.where(Study.state == state)
    return [_study_row(study) for study in session.execute(query).scalars()]


def study_details(session: Session, reference: str) -> dict[str, Any]:
    """Everything about one study except who the patient is."""
    study = find_study(session, reference)
    deliveries = sa.select(Delivery).where(Delivery.study_id == study.id).order_by(Delivery.id)
    events = sa.select(Event).where(Event.study_id == study.id).order_by(Event.id)
    return {
        "study": _study_row(study),
        "series": [
            {
                "number": s.number,
                "modality": s.modality,
                "description": s.description,
                "not_analysed_because": s.reason,
            }
            for s in study.series
        ],
        "analyses": [_analysis_row(a) for a in studies.analyses(session, study.id)],
        "deliveries": [_delivery_row(d) for d in session.execute(deliveries).scalars()],
        "timeline": [
            {"at": e.at, "who": e.who, "what": e.kind, "to": e.to_state, "why": e.why}
            for e in session.execute(events).scalars()
        ],
    }


def retry_study(
    session: Session,
    reference: str,
    now: dt.datetime,
    *,
    reanalyse: bool = False,
    who: str = WHO,
) -> StudyState:
    """Put a study back where its work can go on; returns the state it is in now.

    Raises:
        UnknownStudy: no such study.
        NothingToRetry: it is being worked on, or is done and `reanalyse` was not asked for.
    """
    study = find_study(session, reference)
    state = StudyState(study.state)
    final = (StudyState.FAILED, StudyState.SKIPPED, StudyState.DONE)
    if state not in final or (state is StudyState.DONE and not reanalyse):
        raise NothingToRetry(
            f"study {study.id} is {state}: nothing failed"
            + ("; use --reanalyse for a new revision" if state is StudyState.DONE else "")
        )
    analysed = studies.is_analysed(session, study)
    if state is StudyState.FAILED and analysed and not reanalyse:
        why = f"retried by {who}"
        studies.move(session, study, StudyState.COMPOSING, who=who, why=why, now=now)
        return StudyState.COMPOSING
    sweep.assemble(session, study, f"retried by {who}", now)
    return StudyState.ASSEMBLED


def list_deliveries(
    session: Session, state: str | None, destination: str | None, limit: int
) -> list[dict[str, Any]]:
    """Outbox rows, newest first."""
    query = sa.select(Delivery).order_by(Delivery.id.desc()).limit(limit)
    if state:
        query = query.where(Delivery.state == state)
    if destination:
        query = query.where(Delivery.destination == destination)
    rows = session.execute(query).scalars()
    return [{"study": row.study_id, **_delivery_row(row)} for row in rows]


def _study_row(study: Study) -> dict[str, Any]:
    return {
        "id": study.id,
        "study_uid": study.study_uid,
        "state": study.state,
        "revision": study.revision,
        "modalities": study.modalities,
        "instances": study.instance_count,
        "priority": study.priority,
        "reason": study.reason,
        "pack": study.pack,
        "attempts": study.attempts,
        "last_image": study.last_instance_at,
    }


def _analysis_row(analysis: Analysis) -> dict[str, Any]:
    return {
        "revision": analysis.revision,
        "status": analysis.status,
        "priority": analysis.priority,
        "priority_reason": analysis.priority_reason,
        "pack": f"{analysis.pack} {analysis.pack_version}",
        "seconds": round(analysis.seconds, 2),
        "shadow": analysis.shadow,
    }


def _delivery_row(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "destination": delivery.destination,
        "kind": delivery.kind,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "next_attempt_at": delivery.next_attempt_at,
        "sent": delivery.sent_at,
        "committed": delivery.committed_at,
        "seen": delivery.seen_at,
        "last_error": delivery.last_error,
    }

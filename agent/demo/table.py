"""The demo's table: what was found, how urgent, and how long it took until the PACS had it."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from agent import ordering
from agent.demo.scanners import Sent
from agent.settings import Level, PrioritySettings
from db.models import Analysis, Delivery, Study
from db.queries import studies
from db.states import DeliveryState
from inference.findings import Findings


def rows(
    session: Session, sent: Mapping[str, Sent], policy: PrioritySettings, now: dt.datetime
) -> list[dict[str, Any]]:
    """One object a study, in reading order."""
    query = sa.select(Study).where(Study.study_uid.in_(sent))
    found = list(session.execute(query).scalars())
    arrival = sorted(found, key=lambda s: s.first_instance_at)
    reading = sorted(found, key=lambda s: _place(s, policy, now))
    return [
        {
            **_study(study, sent[study.study_uid]),
            **_analysis(session, study),
            "arrival_rank": arrival.index(study) + 1,
            "reading_rank": rank,
            **_results(session, study),
        }
        for rank, study in enumerate(reading, start=1)
    ]


def _place(study: Study, policy: PrioritySettings, now: dt.datetime) -> ordering.Place:
    level = Level(study.priority) if study.priority else Level.MEDIUM
    return ordering.place(level, study.first_instance_at, now, policy.target_minutes)


def _study(study: Study, sent: Sent) -> dict[str, Any]:
    return {
        "study": sent.scenario.key,
        "study_uid": study.study_uid,
        "accession_number": study.accession_number,
        "modality": sent.scenario.modality,
        "instances": sent.instances,
        "truth": sorted(sent.scenario.labels),
        "ordered_priority": study.ordered_priority,
        "state": study.state,
        "revision": study.revision,
        "reason": study.reason,
        "priority": study.priority,
        "priority_reason": study.priority_reason,
    }


def _analysis(session: Session, study: Study) -> dict[str, Any]:
    analyses = studies.analyses(session, study.id)
    if not analyses:
        return {"findings": [], "pack": "", "status": "", "seconds_analysis": None}
    last: Analysis = analyses[-1]
    findings = Findings.from_json(last.findings)
    return {
        "findings": [
            {"label": f.label, "display": f.display, "probability": round(f.probability, 4)}
            for f in findings.positives
        ],
        "pack": f"{last.pack} {last.pack_version}",
        "status": last.status,
        "seconds_analysis": round(last.seconds, 2),
    }


def _results(session: Session, study: Study) -> dict[str, Any]:
    query = sa.select(Delivery).where(
        Delivery.study_id == study.id, Delivery.state == DeliveryState.DELIVERED
    )
    delivered = list(session.execute(query).scalars())
    reports = [d.delivered_at for d in delivered if d.kind == "sr" and d.delivered_at]
    seconds = None
    if reports:
        seconds = round((max(reports) - study.last_instance_at).total_seconds(), 2)
    return {
        "objects_in_pacs": dict(Counter(d.kind for d in delivered)),
        "seconds_to_result": seconds,
    }

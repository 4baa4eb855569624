"""A study's level anew, when its order came after the model's word or changed since."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from agent import facts as study_facts
from agent import priority
from agent.delivery import outbox
from agent.settings import Destination, Level, PrioritySettings
from db.models import Analysis, Study
from db.queries import announcements, studies
from inference.findings import Findings

WHO = "orders"


@dataclass(frozen=True)
class Policy:
    """What a changed order is judged by, and who is told."""

    priority: PrioritySettings
    destinations: Sequence[Destination] = ()


def again(session: Session, study: Study, policy: Policy, now: dt.datetime, occasion: str) -> bool:
    """Decide the study's level again from what its models said; True when it moved.

    A study without an analysis waits for its own: the worklist takes the order's level until then.
    """
    analyses = announcements.current_analyses(session, study)
    if not analyses:
        return False
    live = [a for a in analyses if not a.shadow]
    decision = _decision(study, live, policy.priority)
    level = decision.level if decision else _ordered(study, policy.priority)
    if level is None or (study.priority and level.rank == study.priority_rank):
        return False
    study.priority, study.priority_rank = level, level.rank
    study.priority_score = decision.score if decision else 0.0
    study.priority_reason = decision.reason if decision else "ordered priority"
    why = f"{level}: {study.priority_reason}, after the order changed"
    studies.note(session, study.id, who=WHO, kind="priority_set", why=why, now=now)
    if live:
        outbox.announce(
            session,
            study,
            live[-1],
            policy.destinations,
            now,
            ordered=_ordered(study, policy.priority),
            occasion=occasion,
        )
    return True


def _decision(
    study: Study, live: Sequence[Analysis], settings: PrioritySettings
) -> priority.Decision | None:
    facts = study_facts.of(study, study.series)
    decisions = [priority.decide(Findings.from_json(a.findings), facts, settings) for a in live]
    return min(decisions, key=lambda d: (d.level.rank, -d.score), default=None)


def _ordered(study: Study, settings: PrioritySettings) -> Level | None:
    return settings.ordered.get(study.ordered_priority.upper())

"""A study's level anew, when its order came after the model's word or changed since."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from agent import facts as study_facts
from agent import priority
from agent.analysis import record
from agent.delivery import outbox
from agent.settings import Destination, PrioritySettings
from db.models import Study
from db.queries import studies
from db.states import ReadingState
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
    analyses = studies.current_analyses(session, study)
    if not analyses or study.reading_state == ReadingState.READ:
        return False
    facts = study_facts.of(study, study.series)
    for row in analyses:  # each pack's level holds the order as it was: heard again as it is
        decision = priority.decide(Findings.from_json(row.findings), facts, policy.priority)
        row.priority, row.priority_score = decision.level, decision.score
        row.priority_reason = decision.reason
        row.votes = priority.votes_to_json(decision.votes)
    before = study.priority
    complete = studies.has_analysis(session, study)
    record.set_priority(session, study, policy.priority, now, who=WHO, complete=complete)
    if study.priority == before:
        return False
    live = [row for row in analyses if not row.shadow]
    if live:
        outbox.announce(
            session,
            study,
            live[-1],
            policy.destinations,
            now,
            ordered=policy.priority.ordered.get(study.ordered_priority.upper()),
            occasion=occasion,
        )
    return True

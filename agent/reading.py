"""What a reader decides about a study's level: above the model's word, and pushed on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from sqlalchemy.orm import Session

from agent.delivery import outbox
from agent.settings import Destination, Level, PrioritySettings
from agent.workitems import following
from db.models import Analysis, Event, Study
from db.queries import studies

KIND = "priority_changed"
WHO_MAX = 64
"""Length of Event.who."""


def set_level(
    session: Session,
    study: Study,
    level: Level,
    why: str,
    *,
    who: str,
    now: dt.datetime,
    policy: PrioritySettings,
    destinations: Sequence[Destination] = (),
) -> None:
    """Place the study at a level, raised or lowered; the caller commits.

    The model's later words about the same images do not move it any more; about later images they
    may raise it (agent/analysis/record.py). Whoever is told of priorities is told of this one,
    where a live analysis stands behind the study; the worklist over DICOM and the workitems follow
    in any case.
    """
    before = study.priority
    study.priority, study.priority_rank = level, level.rank
    study.priority_reason = f"set by {who[:WHO_MAX]}: {why}"
    study.human_level, study.human_revision = level, study.revision
    event = Event(
        study_id=study.id,
        at=now,
        who=who[:WHO_MAX],
        kind=KIND,
        from_state=before,
        to_state=level,
        why=why,
    )
    session.add(event)
    session.flush()
    live = _live(studies.current_analyses(session, study))
    if live is not None:
        outbox.announce(
            session,
            study,
            live,
            destinations,
            now,
            ordered=policy.ordered.get(study.ordered_priority.upper()),
            occasion=f"reader {event.id}",
        )
    following.follow(session, study, now, policy)


def _live(analyses: Sequence[Analysis]) -> Analysis | None:
    """The one an announcement is about: the last that is not in shadow mode."""
    return next((row for row in reversed(analyses) if not row.shadow), None)

"""What the reader does with a study, recorded with an event in one transaction."""

from __future__ import annotations

import datetime as dt
import enum

from sqlalchemy.orm import Session

from agent.workitems import following
from db.models import Event, ReadingFeedback, Study
from db.states import ReadingState

WHO_MAX = 64
"""Length of Event.who."""


class FeedbackKind(enum.StrEnum):
    """What a reader can say about a result."""

    ACKNOWLEDGED = "acknowledged"
    AGREED = "agreed"
    DISAGREED = "disagreed"


def record_feedback(
    session: Session, study: Study, kind: FeedbackKind, text: str, *, who: str, now: dt.datetime
) -> None:
    """Keep the reader's opinion for evaluation; the caller commits."""
    session.add(ReadingFeedback(study_id=study.id, at=now, who=who, kind=kind, text=text))
    session.add(
        Event(study_id=study.id, at=now, who=who[:WHO_MAX], kind="feedback_given", why=kind)
    )


def set_reading_state(
    session: Session, study: Study, state: ReadingState, *, who: str, now: dt.datetime
) -> None:
    """Move the study on or off the worklist; repeating it changes nothing. The caller commits."""
    if study.reading_state == state:
        return
    session.add(
        Event(
            study_id=study.id,
            at=now,
            who=who[:WHO_MAX],
            kind="reading_state_changed",
            from_state=study.reading_state,
            to_state=state,
        )
    )
    study.reading_state = state
    following.follow_reading(session, study, now)

"""What a reader or operator can do: reading state, feedback, retries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from agent import reading
from agent.access.principal import Role
from agent.errors import AgentError
from agent.settings import Level
from agent.web import feedback
from agent.web.access import require, who
from agent.web.dependencies import WebDependencies
from agent.web.security import require_own_json
from db.models import Study
from db.queries.worklist import find_study
from db.states import IllegalMoveError, ReadingState

log = structlog.get_logger(__name__)


class ReadingStateChange(BaseModel):
    """The new reading state."""

    model_config = ConfigDict(extra="forbid")

    state: ReadingState


class PriorityChange(BaseModel):
    """The level a reader sets, and why."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    level: Level
    reason: Annotated[str, Field(min_length=3, max_length=500)]


class Feedback(BaseModel):
    """What the reader says about the result."""

    model_config = ConfigDict(extra="forbid")

    kind: feedback.FeedbackKind
    text: Annotated[str, Field(max_length=4000)] = ""


def router(deps: WebDependencies) -> APIRouter:
    """The POST routes; each needs the page's own origin and a JSON body (``{}`` if empty)."""
    doors = [Depends(require_own_json), Depends(require(Role.RADIOLOGIST))]
    routes = APIRouter(prefix="/api", tags=["actions"], dependencies=doors)

    @routes.post("/studies/{reference}/reading-state")
    def reading_state(
        reference: str, change: ReadingStateChange, request: Request
    ) -> dict[str, str]:
        """Unread, reading or read; a read study leaves the open worklist."""
        with _changing(deps, reference) as (session, study):
            feedback.set_reading_state(
                session, study, change.state, who=who(request).name, now=deps.clock()
            )
            log.info("reading_state_set", study=study.key, reading_state=change.state.value)
        return {"reading_state": change.state}

    @routes.post("/studies/{reference}/priority")
    def priority(reference: str, change: PriorityChange, request: Request) -> dict[str, str]:
        """Raise or lower a study; it stands above the model's word, and is pushed on."""
        with _changing(deps, reference) as (session, study):
            session.refresh(study, with_for_update=True)  # a room may be deciding just now
            reading.set_level(
                session,
                study,
                change.level,
                change.reason,
                who=who(request).name,
                now=deps.clock(),
                policy=deps.priority,
                destinations=deps.destinations,
            )
            log.info("priority_changed", study=study.key, priority=change.level.value)
        return {"level": change.level}

    @routes.post("/studies/{reference}/feedback", status_code=201)
    def give_feedback(reference: str, given: Feedback, request: Request) -> dict[str, str]:
        """Acknowledge, agree or disagree; kept for prospective evaluation."""
        with _changing(deps, reference) as (session, study):
            feedback.record_feedback(
                session, study, given.kind, given.text, who=who(request).name, now=deps.clock()
            )
            log.info("feedback_given", study=study.key, kind=given.kind.value)
        return {"kind": given.kind}

    @routes.post("/studies/{reference}/retry", status_code=202)
    def retry_study(reference: str, request: Request) -> dict[str, str]:
        """Take a failed or skipped study up again."""
        with deps.sessions() as session:
            study = find_study(session, reference)
        if study is None:
            raise HTTPException(404, "no such study")
        _retry(deps.retry_study, study.id, who(request).name)
        return {"retry": "accepted"}

    @routes.post("/deliveries/{delivery_id}/retry", status_code=202)
    def retry_delivery(delivery_id: int, request: Request) -> dict[str, str]:
        """Send a dead letter again."""
        _retry(deps.retry_delivery, delivery_id, who(request).name)
        return {"retry": "accepted"}

    return routes


@contextmanager
def _changing(deps: WebDependencies, reference: str) -> Iterator[tuple[Session, Study]]:
    """The study in a writing transaction, committed at the end."""
    with deps.sessions.begin() as session:
        study = find_study(session, reference)
        if study is None:
            raise HTTPException(404, "no such study; retention may have removed it")
        yield session, study


def _retry(retry: Callable[[int, str], None], ident: int, who: str) -> None:
    try:
        retry(ident, who)
    except LookupError:
        raise HTTPException(404, "there is nothing with this id") from None
    except (AgentError, IllegalMoveError) as error:
        raise HTTPException(409, str(error)) from None

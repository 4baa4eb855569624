"""The flow at one look: which room takes a study in which state.

    receiving ─assembly─▶ assembled ─routing─▶ queued ─analysis─▶ composing ─composing─▶ delivering
                                     └▶ skipped    (priority committed)      ─outbox─▶ done

Assembly and the outbox work on many studies at once and have loops of their own (schedule.py);
the rooms below take one claimed study at a time and leave it in its next state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from db.queries.claims import Claim
from db.states import StudyState


@dataclass(frozen=True)
class Room:
    """One step of the flow.

    Attributes:
        name: as it appears in logs, metrics and the timeline.
        takes: the state a study waits in.
        works_as: the state it is in while the room works on it.
        run: does the work for (claim, owner) and moves the study on.
    """

    name: str
    takes: StudyState
    works_as: StudyState
    run: Callable[[Claim, str], None]


def flow(
    routing: Callable[[Claim, str], None],
    analysis: Callable[[Claim, str], None],
    composing: Callable[[Claim, str], None],
) -> tuple[Room, ...]:
    """The rooms in their order."""
    return (
        Room("routing", StudyState.ASSEMBLED, StudyState.ASSEMBLED, routing),
        Room("analysis", StudyState.QUEUED, StudyState.ANALYSING, analysis),
        Room("composing", StudyState.COMPOSING, StudyState.COMPOSING, composing),
    )

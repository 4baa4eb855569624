"""The flow at one look: which room takes a study in which state.

    receiving ─assembly─▶ assembled ─routing─▶ queued ─analysis─▶ composing ─composing─▶ delivering
                                     └▶ skipped    (priority committed)      ─outbox─▶ done

Assembly and the outbox work on many studies at once and have loops of their own (schedule.py);
the rooms below take one claimed study at a time and leave it in its next state. Two more work
beside the flow, and nothing in it waits for them: a provisional analysis while an emergency study
is still received (analysis/provisional.py), and the language model's draft after composing
(drafting/room.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from db.queries.claims import Claim
from db.states import StudyState

Run = Callable[[Claim, str], None]
RunMany = Callable[[Sequence[Claim], str], Mapping[int, Exception]]


@dataclass(frozen=True)
class Room:
    """One step of the flow.

    Attributes:
        name: as it appears in logs, metrics and the timeline.
        takes: the state a study waits in.
        works_as: the state it is in while the room works on it.
        run: does the work for (claim, owner) and moves the study on.
        run_many: the same for several claims at once; gives back what failed, by study id.
        batch: how many studies `run_many` is given at most.
    """

    name: str
    takes: StudyState
    works_as: StudyState
    run: Run
    run_many: RunMany | None = None
    batch: int = 1


def flow(
    routing: Run,
    analysis: Run,
    composing: Run,
    analysis_of_many: RunMany | None = None,
    batch: int = 1,
) -> tuple[Room, ...]:
    """The rooms in their order."""
    analysing = StudyState.ANALYSING
    return (
        Room("routing", StudyState.ASSEMBLED, StudyState.ASSEMBLED, routing),
        Room("analysis", StudyState.QUEUED, analysing, analysis, analysis_of_many, batch),
        Room("composing", StudyState.COMPOSING, StudyState.COMPOSING, composing),
    )

"""What the operations page shows, as frozen values."""

from __future__ import annotations

import datetime as dt
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from agent.health import Health
from agent.observability.metrics import free_bytes
from agent.settings import Destination
from db.models import Delivery, Study
from db.queries import operation as rows
from db.queries import worklist
from db.queries.operation import DestinationRow
from db.states import StudyState

LIMIT = 50
HOURS = (1, 6, 24)

#: Room -> the states in which a study waits for it or is in it, in the order of the flow.
ROOMS: Mapping[str, tuple[StudyState, ...]] = {
    "Receiving": (StudyState.RECEIVING,),
    "Routing": (StudyState.ASSEMBLED,),
    "Analysis, waiting": (StudyState.QUEUED,),
    "Analysis, under way": (StudyState.ANALYSING,),
    "Composing": (StudyState.COMPOSING,),
    "Delivering": (StudyState.DELIVERING,),
}


@dataclass(frozen=True)
class Queue:
    """Studies in one room; `oldest_minutes` since the last image of the one longest there."""

    room: str
    number: int
    oldest_minutes: float | None


@dataclass(frozen=True)
class Throughput:
    """What was analysed in the last hours; seconds are of the models alone."""

    hours: int
    analyses: int
    not_succeeded: int
    median_s: float | None
    longest_s: float | None


@dataclass(frozen=True)
class Peer:
    """A destination that is configured, or one that older deliveries name."""

    name: str
    kind: str
    shadow: bool
    seen: DestinationRow


@dataclass(frozen=True)
class Operations:
    """The whole page."""

    health: Health
    queues: tuple[Queue, ...]
    finished: dict[str, int]
    throughput: tuple[Throughput, ...]
    failed: tuple[Study, ...]
    dead: tuple[tuple[Delivery, str], ...]
    peers: tuple[Peer, ...]
    drafts: dict[str, int]
    hl7: dict[str, int]
    free_bytes: int | None
    device: str


def operations(
    session: Session,
    now: dt.datetime,
    health: Callable[[], Health],
    destinations: Sequence[Destination],
    spool: Path | None,
) -> Operations:
    """Look at everything once."""
    by_state = worklist.studies_by_state(session)
    final = (StudyState.DONE, StudyState.SKIPPED, StudyState.FAILED)
    newest = rows.newest_analysis(session)
    return Operations(
        health=health(),
        queues=_queues(session, by_state, now),
        finished={state.value: by_state.get(state, 0) for state in final},
        throughput=_throughput(session, now),
        failed=tuple(rows.failed_studies(session, LIMIT)),
        dead=tuple(rows.dead_deliveries(session, LIMIT)),
        peers=_peers(session, destinations),
        drafts=rows.drafts_by_state(session),
        hl7=rows.hl7_by_state(session),
        free_bytes=free_bytes(spool) if spool is not None else None,
        device=json.loads(newest.findings).get("device", "") if newest is not None else "",
    )


def _queues(session: Session, by_state: Mapping[str, int], now: dt.datetime) -> tuple[Queue, ...]:
    waiting = [state for states in ROOMS.values() for state in states]
    oldest = rows.oldest_waiting(session, waiting)
    queues = []
    for room, states in ROOMS.items():
        since = min((oldest[state] for state in states if state in oldest), default=None)
        minutes = (now - since).total_seconds() / 60 if since is not None else None
        queues.append(Queue(room, sum(by_state.get(state, 0) for state in states), minutes))
    return tuple(queues)


def _throughput(session: Session, now: dt.datetime) -> tuple[Throughput, ...]:
    done = rows.analyses_since(session, now - dt.timedelta(hours=max(HOURS)))
    told = []
    for hours in HOURS:
        since = now - dt.timedelta(hours=hours)
        of_them = [row for row in done if row[0] >= since]
        seconds = [row[1] for row in of_them]
        told.append(
            Throughput(
                hours=hours,
                analyses=len(of_them),
                not_succeeded=sum(row[2] != "succeeded" for row in of_them),
                median_s=statistics.median(seconds) if seconds else None,
                longest_s=max(seconds, default=None),
            )
        )
    return tuple(told)


def _peers(session: Session, destinations: Sequence[Destination]) -> tuple[Peer, ...]:
    counted: dict[str, dict[str, int]] = {d.name: {} for d in destinations}
    for (name, state), number in worklist.deliveries_by_destination(session).items():
        counted.setdefault(name, {})[state] = number
    known = {d.name: d for d in destinations}
    return tuple(
        Peer(
            name=name,
            kind=known[name].kind if name in known else "not configured any more",
            shadow=known[name].shadow if name in known else False,
            seen=rows.destination(session, name, by_state),
        )
        for name, by_state in counted.items()
    )

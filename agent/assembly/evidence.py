"""What the record holds as evidence that a study is complete: rows → `completeness.Evidence`."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy.orm import Session

from agent.assembly.completeness import Evidence, Expected, Named
from agent.settings import AssemblySettings, ExpectedProtocol
from db.models import Study
from db.queries import arrivals

#: When a sender (by AE title) released its last association; None while one is open.
ReleasedAt = Callable[[str], dt.datetime | None]

IN_PROGRESS, COMPLETED = "IN PROGRESS", "COMPLETED"


def gather(
    session: Session,
    study: Study,
    settings: AssemblySettings,
    *,
    listening_since: dt.datetime | None = None,
    released_at: ReleasedAt | None = None,
) -> Evidence:
    """Everything that is known of a study that is being received."""
    steps = arrivals.steps_of(session, study.study_uid)
    notices = arrivals.notices_of(session, study.study_uid)
    made = _named(row.references for row in steps if row.status == COMPLETED)
    available = _named(row.references for row in notices)
    here = arrivals.received_instances(session, study.id) if made or available else set()
    if available:  # an archive tells us of our own results too; they do not come back
        available -= arrivals.own_instances(session, study.id)
    return Evidence(
        receiving_since=study.receiving_since or study.first_instance_at,
        last_instance_at=study.last_instance_at,
        modalities=frozenset(s.modality for s in study.series if not s.own_result),
        instance_count=study.instance_count,
        expected_count=study.expected_count or None,
        listening_since=listening_since,
        steps_open=sum(row.status == IN_PROGRESS for row in steps),
        made=Named(len(made), len(made - here)),
        available=Named(len(available), len(available - here)),
        expected=_expected(session, study, settings.expected_series),
        released_at=released_at(study.calling_ae) if released_at else None,
    )


def missing_series(
    protocol: ExpectedProtocol, received: Sequence[tuple[str, int]]
) -> tuple[str, ...]:
    """Which series of a protocol are not here (yet), in words.

    Args:
        protocol: what the configuration expects.
        received: (description and protocol, instances) of each series.
    """
    missing = []
    for wanted in protocol.series:
        fitting = [
            text
            for text, instances in received
            if instances >= wanted.min_instances
            and re.search(wanted.description, text, re.IGNORECASE)
        ]
        if len(fitting) < wanted.min_series:
            missing.append(f"{wanted.min_series - len(fitting)} of {wanted.description}")
    return tuple(missing)


def _expected(
    session: Session, study: Study, protocols: Sequence[ExpectedProtocol]
) -> Expected | None:
    texts = [study.description, *(s.protocol for s in study.series if not s.own_result)]
    for protocol in protocols:
        if any(re.search(protocol.protocol, text, re.IGNORECASE) for text in texts):
            received = arrivals.series_counts(session, study.id)
            return Expected(protocol.name, protocol.quiet_s, missing_series(protocol, received))
    return None


def _named(references: Iterable[str]) -> set[str]:
    return {uid for row in references for uid in arrivals.instances_in(row)}

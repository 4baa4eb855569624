"""The assembly room: complete studies move on, late instances reopen studies."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent.assembly import completeness, evidence
from agent.assembly.evidence import ReleasedAt
from agent.settings import AssemblySettings
from db.engine import reading
from db.models import Study
from db.queries import arrivals, studies
from db.states import StudyState
from inference.study import IMAGE_MODALITIES

log = structlog.get_logger(__name__)

WHO = "assembly"
#: Asks the archive how many instances it holds of a study (our own results left out).
CountInstances = Callable[[Study], int | None]


def sweep(
    sessions: sessionmaker[Session],
    settings: AssemblySettings,
    now: dt.datetime,
    count_instances: CountInstances | None = None,
    listening_since: dt.datetime | None = None,
    released_at: ReleasedAt | None = None,
) -> int:
    """Reopen studies with late instances, then assemble what is complete.

    Args:
        sessions: of the record.
        settings: quiet periods and ceiling.
        now: the time of this sweep.
        count_instances: asks the archive, if configuration names one.
        listening_since: start of this agent; the time it was down does not count as quiet.
        released_at: when a sender released its last association.

    Returns:
        How many studies were assembled.
    """
    with sessions.begin() as session:
        for study in studies.with_late_instances(session):
            _take_late(session, study, now)
    if count_instances is not None:
        _refresh_counts(sessions, settings, now, count_instances)
    with sessions.begin() as session:
        if arrivals.has_orphans(session):
            arrivals.adopt_steps(session)
        complete = []
        for study in studies.receiving(session):
            known = evidence.gather(
                session,
                study,
                settings,
                listening_since=listening_since,
                released_at=released_at,
            )
            if verdict := completeness.decide(known, now, settings):
                complete.append((study, verdict.reason))
        for study, reason in complete:
            assemble(session, study, reason, now)
    return len(complete)


def assemble(session: Session, study: Study, reason: str, now: dt.datetime) -> None:
    """Close the current revision; opens the next one if the current was already analysed."""
    if study.revision == 0 or studies.has_analysis(session, study):
        study.revision += 1
    study.assembled_at = now
    study.assembled_count = study.instance_count
    study.assembled_images = studies.image_count(session, study.id, IMAGE_MODALITIES)
    study.done_at = None
    studies.move(session, study, StudyState.ASSEMBLED, who=WHO, why=reason, now=now)
    log.info(
        "study_assembled",
        study=study.key,
        revision=study.revision,
        instances=study.instance_count,
        reason=reason,
    )


def _take_late(session: Session, study: Study, now: dt.datetime) -> None:
    """Late images reopen the study; a report, key object or presentation state does not.

    Else the radiologist's own report would have the model read every study again.
    """
    if studies.image_count(session, study.id, IMAGE_MODALITIES) > study.assembled_images:
        _reopen(session, study, now)
        return
    late = study.instance_count - study.assembled_count
    study.assembled_count = study.instance_count
    why = f"{late} without images for a model"
    studies.note(session, study.id, who=WHO, kind="late_objects_kept", why=why, now=now)


def _reopen(session: Session, study: Study, now: dt.datetime) -> None:
    late = study.instance_count - study.assembled_count
    study.receiving_since = now
    why = f"{late} late instance{'s' if late != 1 else ''} arrived"
    studies.move(session, study, StudyState.RECEIVING, who=WHO, why=why, now=now)
    log.info("study_reopened", study=study.key, revision=study.revision, late=late)


def _refresh_counts(
    sessions: sessionmaker[Session],
    settings: AssemblySettings,
    now: dt.datetime,
    count_instances: CountInstances,
) -> None:
    """Ask the archive about quiet studies, outside any transaction: it may be slow."""
    with reading(sessions) as session:
        candidates = [
            study
            for study in studies.receiving(session)
            if (now - study.last_instance_at).total_seconds() >= settings.count_min_quiet_s
            and study.expected_count != study.instance_count
        ]
    for candidate in candidates:
        count = count_instances(candidate)
        if count is None:
            continue
        with sessions.begin() as session:
            studies.get(session, candidate.id).expected_count = count

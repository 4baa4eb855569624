"""What an analysis leaves on record: its row, and the priority of the study over all its packs."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from agent import __version__, priority, worklist_entries
from agent import facts as study_facts
from agent.drafting import triage_json
from agent.priority import Decision, Opinion, Vote
from agent.settings import Level, PrioritySettings
from agent.workitems import following
from db.models import Analysis, Study
from db.queries import drafts, studies
from db.states import ReadingState
from inference.findings import Findings
from inference.study import IMAGE_MODALITIES


@dataclass(frozen=True)
class Analysed:
    """One pack's answer, and under which circumstances it came.

    Attributes:
        pack: as configured, which is what routing names.
        seconds: time the models took.
        shadow: recorded only.
        provisional: of a study that is not complete yet.
    """

    pack: str
    findings: Findings
    seconds: float
    shadow: bool = False
    provisional: bool = False


def add(
    session: Session, study: Study, said: Analysed, policy: PrioritySettings, now: dt.datetime
) -> Analysis:
    """Write the row of one pack's analysis, and why each series was read or not."""
    earlier = studies.current_analyses(session, study)
    decision = priority.decide(said.findings, study_facts.of(study, study.series), policy)
    findings = said.findings.to_json()
    row = Analysis(
        id=uuid.uuid4().hex,
        study_id=study.id,
        revision=study.revision,
        pack=said.pack,
        pack_version=said.findings.pack.version,
        pack_digest=said.findings.pack.digest,
        code_version=__version__,
        status=said.findings.status,
        findings=findings,
        summary=worklist_entries.summary_of(findings),
        priority=decision.level,
        priority_score=decision.score,
        priority_reason=decision.reason,
        votes=priority.votes_to_json(decision.votes),
        provisional=said.provisional,
        shadow=said.shadow,
        seconds=said.seconds,
        created_at=now,
    )
    session.add(row)
    session.flush()
    _keep_series_reasons(study, said.findings, first=not earlier)
    return row


def set_priority(
    session: Session,
    study: Study,
    policy: PrioritySettings,
    now: dt.datetime,
    *,
    who: str,
    complete: bool = True,
) -> Decision:
    """Decide over everything that was said of the current revision; the worklist moves with this.

    `complete` says that every pack and every series was heard; before that a level is only raised.
    """
    rows = studies.current_analyses(session, study)
    study.found = worklist_entries.names_of(row.findings for row in rows)
    decision, shadow = combined(session, study, rows, policy)
    why = f"{decision.level}: {decision.reason}{_differ(decision)}"
    if shadow:
        why += " (shadow mode: recorded, the worklist keeps the ordered priority)"
    level = decision.level if not shadow else decision.ordered
    lower = bool(study.priority) and level is not None and level.rank > study.priority_rank
    if level is not None and _reader_decides(study, level):
        why += f"; stays {study.priority}, which a reader set"
    elif level is not None and not complete and lower:
        why += f"; stays {study.priority} until everything was analysed"
    elif level is not None:
        why += _apply(study, level, decision, shadow=shadow)
    studies.note(session, study.id, who=who, kind="priority_set", why=why, now=now)
    following.follow(session, study, now, policy)
    return decision


def combined(
    session: Session,
    study: Study,
    rows: Sequence[Analysis],
    policy: PrioritySettings,
    *,
    triaged: bool = True,
) -> tuple[Decision, bool]:
    """What a revision's analyses and its triage come to, and whether all of it is in shadow mode.

    Without `triaged`, what they came to before the triage, if there was one.
    """
    live = [row for row in rows if not row.shadow]
    ordered = policy.ordered.get(study.ordered_priority.upper())
    said = drafts.triage_of(session, study.id, rows[0].revision) if live and triaged else ""
    triage = priority.triage_vote(triage_json.read(said), policy) if said else None
    decision = priority.combine([opinion(row) for row in live or rows], ordered, triage)
    return decision, not live


def opinion(row: Analysis) -> Opinion:
    """An analysis as the priority policy hears it."""
    return Opinion(
        pack=row.pack,
        status=row.status,
        level=Level(row.priority),
        score=row.priority_score,
        reason=row.priority_reason,
        votes=priority.votes_from_json(row.votes) or _legacy_votes(row),
    )


def _legacy_votes(row: Analysis) -> tuple[Vote, ...]:
    """Analyses from before votes were kept: one voice."""
    voice = Vote(priority.FINDINGS, Level(row.priority), row.priority_score, row.priority_reason)
    return (voice,) if row.status == "succeeded" else ()


def _differ(decision: Decision) -> str:
    return f" (opinions differ: {decision.disagreement})" if decision.disagreement else ""


def _reader_decides(study: Study, level: Level) -> bool:
    """Whether a reader's word stands: about the same images always, about later ones unless raised.

    The reader has seen what the model saw; what came since, nobody has.
    """
    if not study.human_level or study.priority != study.human_level:
        return False
    return study.human_revision == study.revision or level.rank >= study.priority_rank


def _apply(study: Study, level: Level, decision: Decision, *, shadow: bool) -> str:
    """Set the level; says what else the reader must know."""
    told = ""
    if study.reading_state == ReadingState.READ and level.rank < study.priority_rank:
        # What was read was less urgent than what late images show: it comes back.
        study.reading_state = ReadingState.UNREAD
        told = "; back on the open list, it was read before these images came"
    study.priority, study.priority_rank = level, level.rank
    study.priority_score = 0.0 if shadow else decision.score
    reason = f"{decision.reason}{_differ(decision)}"
    study.priority_reason = "ordered priority" if shadow else reason
    return told


def _keep_series_reasons(study: Study, findings: Findings, *, first: bool) -> None:
    """Why a series was not read; what one pack has read, no other pack's reason covers."""
    reports = {r.series_uid: r for r in findings.series}
    for series in study.series:
        report = reports.get(series.series_uid)
        if report is not None and (report.used or first):
            series.reason = "" if report.used else report.reason
        elif report is None and series.own_result:
            series.reason = "a result of this agent"
        elif report is None and series.modality not in IMAGE_MODALITIES:
            series.reason = f"modality {series.modality or 'unknown'} is not read by models"

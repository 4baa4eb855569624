"""Findings, the model's own priority, triage and site policy → a reading priority. Pure.

The policy (docs/operate.md, "Who decides the priority"): every voice is heard, the most urgent one
wins, and where voices differ that is said. AI may raise a study, never lower it below its order.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent import facts as study_facts
from agent.settings import Level, PrioritySettings
from inference.findings import Acuity, Finding, Findings, ModelPriority, Status
from inference.report.draft import Triage

FINDINGS = "findings"
PRIORITY_HEAD = "priority head"
TRIAGE = "triage"
#: Voices of a model; the others (order, site rule, not analysed) are people's words.
MODEL_VOICES = (FINDINGS, PRIORITY_HEAD, TRIAGE)
_SITE, _ORDER, _UNREAD = "site rule", "order", "not analysed"


@dataclass(frozen=True)
class Vote:
    """What one voice says.

    Attributes:
        voice: who speaks, e.g. ``findings``; with the pack's name once packs are combined.
        level: how soon the study should be read.
        score: probability behind it, 0..1; 0 when there is none.
        reason: one sentence a radiologist can read.
    """

    voice: str
    level: Level
    score: float
    reason: str


@dataclass(frozen=True)
class Decision:
    """The level a study is read at, and why.

    Attributes:
        level: the outcome, never below what was ordered.
        score: probability of the finding that decided, 0..1; 0 when none did.
        reason: one sentence a radiologist can read.
        ordered: the level the order asked for; None when the order says nothing.
        votes: the strongest vote of each model voice.
        disagreement: how the model voices differ; empty when they agree.
    """

    level: Level
    score: float
    reason: str
    ordered: Level | None
    votes: tuple[Vote, ...] = ()
    disagreement: str = ""


@dataclass(frozen=True)
class Opinion:
    """What one pack's analysis came to, as it is on record."""

    pack: str
    status: str
    level: Level
    score: float
    reason: str
    votes: tuple[Vote, ...] = ()


def decide(
    findings: Findings, facts: study_facts.StudyFacts, settings: PrioritySettings
) -> Decision:
    """What one pack's findings come to, together with the order and the site's rules."""
    ordered = settings.ordered.get(facts.ordered_priority.upper())
    votes = [*_model_votes(findings, settings), *_overrides(findings, facts, settings)]
    if ordered is not None:
        said = f"ordered as {facts.ordered_priority.upper()}"
        votes.append(Vote(_ORDER, ordered, 0.0, said))
    best = _most_urgent(votes)
    return Decision(
        level=best.level,
        score=round(best.score, 4),
        reason=best.reason,
        ordered=ordered,
        votes=_strongest(votes),
    )


def combine(
    opinions: Sequence[Opinion], ordered: Level | None, triage: Vote | None = None
) -> Decision:
    """What all packs (at least one) and the triage of one study come to."""
    heard = _heard(opinions)
    claims = [Vote(o.pack, o.level, o.score, o.reason) for o in heard]
    models = [_named(vote, o.pack, len(heard)) for o in heard for vote in o.votes]
    if triage is not None:
        claims.append(triage)
        models.append(triage)
    if ordered is not None:
        claims.append(Vote(_ORDER, ordered, 0.0, f"ordered as {ordered}"))
    best = _most_urgent(claims)
    return Decision(
        level=best.level,
        score=best.score,
        reason=best.reason,
        ordered=ordered,
        votes=tuple(models),
        disagreement=_disagreement(models),
    )


def triage_vote(triage: Triage, settings: PrioritySettings) -> Vote:
    """The vote of the reasoning model that read the draft: the level of its acuity class."""
    level = _class_level(triage.level, settings)
    return Vote(TRIAGE, level, 0.0, f"triage by {triage.model}: {triage.reason}")


def votes_to_json(votes: Iterable[Vote]) -> str:
    """As kept in `Analysis.votes`."""
    return json.dumps(
        [{"voice": v.voice, "level": v.level, "score": v.score, "reason": v.reason} for v in votes]
    )


def votes_from_json(text: str) -> tuple[Vote, ...]:
    """Inverse of `votes_to_json`."""
    return tuple(Vote(**{**v, "level": Level(v["level"])}) for v in json.loads(text or "[]"))


def _heard(opinions: Sequence[Opinion]) -> list[Opinion]:
    """A pack that could not read the study is not heard where another one did.

    "Not attempted" says that the study does not suit the pack; "failed" still asks for attention.
    """
    read = [o for o in opinions if o.status in (Status.SUCCEEDED, Status.PARTIAL)]
    return [o for o in opinions if o in read or not read or o.status != Status.NOT_ATTEMPTED]


def _named(vote: Vote, pack: str, packs: int) -> Vote:
    voice = f"{vote.voice} of {pack}" if packs > 1 else vote.voice
    return Vote(voice, vote.level, vote.score, vote.reason)


def _disagreement(votes: Sequence[Vote]) -> str:
    if len({vote.level for vote in votes}) < 2:
        return ""
    return ", ".join(f"{vote.voice}: {vote.level}" for vote in votes)


def _most_urgent(votes: Sequence[Vote]) -> Vote:
    return min(votes, key=lambda v: (v.level.rank, -v.score))


def _strongest(votes: Sequence[Vote]) -> tuple[Vote, ...]:
    found = ([v for v in votes if v.voice == voice] for voice in MODEL_VOICES)
    return tuple(_most_urgent(of_voice) for of_voice in found if of_voice)


def _model_votes(findings: Findings, settings: PrioritySettings) -> list[Vote]:
    """The model's own priority head speaks for it; else its findings do, by their acuity.

    Labels that the site gave a level of their own count in both cases.
    """
    floor = _floor(findings, settings)
    if findings.model_priority is None:
        return [floor, *(_vote(f, settings) for f in findings.positives)]
    named = [_vote(f, settings) for f in findings.positives if f.label in settings.labels]
    head = _head_vote(findings.model_priority, findings, settings)
    return [head, *named] if findings.status is Status.SUCCEEDED else [floor, head, *named]


def _head_vote(said: ModelPriority, findings: Findings, settings: PrioritySettings) -> Vote:
    level = settings.model_levels.get(said.level)
    share = _softmax_share(said)
    reason = f"own priority head of {findings.pack.name}: {said.level} {share:.0%}"
    if findings.positives:
        reason += f"; most probable finding {findings.positives[0].display}"
    if level is None:
        reason += " (a level that priority.model_levels does not name)"
    return Vote(PRIORITY_HEAD, level or settings.unread_failure, round(share, 4), reason)


def _softmax_share(said: ModelPriority) -> float:
    """How much of the softmax the chosen level has: the head publishes raw outputs."""
    top = max(said.scores)
    return 1.0 / sum(math.exp(score - top) for score in said.scores)


def _floor(findings: Findings, settings: PrioritySettings) -> Vote:
    """The vote of the study itself: nothing found, or not (fully) looked at."""
    if findings.status in (Status.FAILED, Status.NOT_ATTEMPTED):
        return Vote(
            _UNREAD,
            settings.unread_failure,
            0.0,
            f"not analysed ({findings.reason or findings.status}): says nothing about urgency",
        )
    if findings.status is Status.PARTIAL:
        return Vote(
            _UNREAD,
            min(settings.normal, settings.unread_failure, key=lambda level: level.rank),
            0.0,
            f"analysed in part ({findings.reason}), nothing above threshold in what was read",
        )
    return Vote(FINDINGS, settings.normal, 0.0, "no finding above its threshold")


def _vote(finding: Finding, settings: PrioritySettings) -> Vote:
    level = settings.labels.get(finding.label) or _level_of(finding, settings)
    percent = f"{finding.probability:.0%}"
    reason = f"{finding.display} {percent} ({finding.acuity})"
    return Vote(FINDINGS, level, finding.probability, reason)


def _level_of(finding: Finding, settings: PrioritySettings) -> Level:
    level = _class_level(finding.acuity, settings)
    doubtful = finding.probability - finding.threshold < settings.certain_margin
    if finding.acuity is Acuity.URGENT and level is Level.STAT and doubtful:
        return Level.HIGH
    return level


def _class_level(acuity: Acuity, settings: PrioritySettings) -> Level:
    match acuity:
        case Acuity.URGENT:
            return settings.urgent
        case Acuity.ROUTINE:
            return settings.routine
        case Acuity.NORMAL:
            return settings.normal


def _overrides(
    findings: Findings, facts: study_facts.StudyFacts, settings: PrioritySettings
) -> list[Vote]:
    votes = []
    for rule in settings.overrides:
        if not study_facts.matches(rule.when, facts):
            continue
        if rule.finding is None:
            votes.append(Vote(_SITE, rule.at_least, 0.0, f"site rule: {rule.name}"))
            continue
        wanted = re.compile(rule.finding, re.IGNORECASE)
        hits = [f for f in findings.positives if wanted.fullmatch(f.label)]
        if hits:
            best = hits[0]
            reason = f"site rule: {rule.name} ({best.display} {best.probability:.0%})"
            votes.append(Vote(_SITE, rule.at_least, best.probability, reason))
    return votes

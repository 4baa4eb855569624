"""The routing room: an assembled study gets its packs, or its reason why not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session, sessionmaker

from agent import facts as study_facts
from agent.clock import Clock
from agent.routing import rules
from agent.settings import Level, PrioritySettings, RoutingSettings
from agent.workitems import following
from db.models import Study
from db.models.study import PACK_SEPARATOR
from db.queries import claims, studies
from db.states import StudyState

log = structlog.get_logger(__name__)

WHO = "routing"

JoinOrder = Callable[[Session, Study, dt.datetime], object]


def no_order(_session: Session, _study: Study, _now: dt.datetime) -> None:
    """Where no order is ever received."""


@dataclass(frozen=True)
class RoutingRoom:
    """What the room needs: the record and the rules."""

    sessions: sessionmaker[Session]
    routing: RoutingSettings
    policy: PrioritySettings
    clock: Clock
    join_order: JoinOrder = no_order
    """Gives the study what its order says, so that a rule may ask for it."""

    def run(self, claim: claims.Claim, owner: str) -> None:
        """Apply the rules to a claimed study and move it on."""
        now = self.clock()
        with self.sessions.begin() as session:
            study = claims.owned(session, claim.study_id, owner)
            if study is None:
                return
            self.join_order(session, study, now)
            facts = study_facts.of(study, study.series)
            route = rules.route(facts, self.routing)
            study.pack, study.rule = PACK_SEPARATOR.join(route.packs), route.rule
            if route.packs:
                why = f"rule {route.rule}: pack{'s' * (len(route.packs) > 1)} {study.pack}"
                studies.move(session, study, StudyState.QUEUED, who=WHO, why=why, now=now)
            else:
                # Not a negative: it is read at the level the order asked for.
                if not study.human_level:  # a reader's own word stands
                    level = self.policy.ordered.get(facts.ordered_priority.upper(), Level.MEDIUM)
                    study.priority, study.priority_rank = level, level.rank
                    study.priority_score = 0.0
                    study.priority_reason = f"not analysed: {route.reason}"
                studies.move(session, study, StudyState.SKIPPED, who=WHO, why=route.reason, now=now)
                study.done_at = now
                following.follow(session, study, now, self.policy)
        log.info("study_routed", study=claim.key, pack=study.pack, rule=route.rule)

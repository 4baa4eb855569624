"""The housekeeping list: what the schedule runs, and how often."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Protocol

import structlog

from agent import prior_fetching, retention
from agent.assembly import sweep as assembly
from agent.assembly.evidence import ReleasedAt
from agent.config import Config
from agent.delivery import registry
from agent.foundation import Foundation
from agent.health import Severity
from agent.intake import janitor
from agent.schedule import Sweep
from db import engine as db_engine
from db.models import Study
from db.queries import claims, delivery_claims, studies
from dicom_nodes.errors import NodeError

log = structlog.get_logger(__name__)


class Analyser(Protocol):
    """The inference process as far as housekeeping cares."""

    @property
    def alive(self) -> bool:
        """Whether it runs."""

    def revive(self) -> None:
        """Start it again if it died."""


class Assembly:
    """The assembly sweep; it knows since when there has been anybody to hear."""

    def __init__(self, base: Foundation, released_at: ReleasedAt | None = None) -> None:
        self._base = base
        self._released_at = released_at
        self._count = count_instances_at(base)
        self._listening_since: dt.datetime | None = None

    def __call__(self) -> None:
        """Assemble what is complete; the first call comes right after the node began to listen."""
        now = self._base.clock()
        self._listening_since = self._listening_since or now
        assembly.sweep(
            self._base.sessions,
            self._base.config.assembly,
            now,
            self._count,
            self._listening_since,
            self._released_at,
        )


def housekeeping(
    base: Foundation,
    wake_outbox: Callable[[], None],
    analyser: Analyser,
    released_at: ReleasedAt | None = None,
) -> list[Sweep]:
    """Name, every, function; each is safe to repeat and to miss."""
    every = base.config.schedule
    keep = dt.timedelta(days=base.config.storage.retention_days)
    return [
        Sweep("assembly", every.assembly_s, Assembly(base, released_at)),
        Sweep("lease_expiry", every.lease_s, lambda: _expire_leases(base)),
        Sweep("delivery", every.delivery_s, wake_outbox),
        Sweep("digests", every.digest_s, lambda: _digest(base)),
        Sweep(
            "retention",
            every.retention_s,
            lambda: retention.sweep(
                base.sessions, base.spool.root, base.results, keep, base.clock()
            ),
        ),
        Sweep("janitor", every.retention_s, lambda: sweep_spool(base)),
        Sweep("health", every.health_s, lambda: _log_health(base, analyser.alive)),
        Sweep("inference", every.health_s, analyser.revive),
    ]


def sweep_spool(base: Foundation) -> None:
    """Remove what interrupted transfers left."""
    janitor.sweep(base.spool, _janitor_settings(base.config))
    config = base.config  # at work for so long at most, however late the model gives way
    in_use_s = 2 * config.priors.timeout_s + config.inference.timeout_s
    prior_fetching.sweep(config.priors_dir, older_than_s=in_use_s)


def count_instances_at(base: Foundation) -> assembly.CountInstances | None:
    """How to ask the archive for its count, if configuration names one to ask."""
    name = base.config.assembly.count_from
    if not name:
        return None
    destination = next(d for d in base.config.destinations if d.name == name)
    channel = registry.channel(destination, base.config.dicom.ae_title)

    def count(study: Study) -> int | None:
        with db_engine.reading(base.sessions) as session:
            ours = studies.result_series(session, study.id)
        try:
            return channel.count_instances(study.study_uid, ours)
        except NodeError as error:
            log.warning("archive_not_counted", study=study.key, why=str(error))
            return None

    return count


def _expire_leases(base: Foundation) -> None:
    with base.sessions.begin() as session:
        claims.expire(session, base.clock())
        delivery_claims.expire_leases(session, base.clock())


def _digest(base: Foundation) -> None:
    with base.sessions() as session:
        janitor.digest_pending(session, base.spool)


def _log_health(base: Foundation, worker_alive: bool) -> None:
    for check in base.health(worker_alive=worker_alive).checks:
        if check.severity is not Severity.OK:
            log.warning("health", check=check.name, severity=check.severity, reason=check.reason)


def _janitor_settings(config: Config) -> janitor.JanitorSettings:
    return janitor.JanitorSettings(keep_incoming_s=config.storage.keep_incoming_minutes * 60)

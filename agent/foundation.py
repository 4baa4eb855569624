"""What every part stands on, made once from the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from agent import database, health, installation
from agent.clock import Clock
from agent.config import Config
from agent.intake.spool import Spool
from agent.observability.metrics import Metrics
from agent.results.context import Installation
from db import engine as db_engine
from inference import packs
from inference.packs import Manifest


@dataclass(frozen=True)
class Foundation:
    """Configuration, record, directories, models, measures, identity and time.

    Attributes:
        results: directory of composed objects and pictures.
        manifests: by the configured name of the pack.
        log_file: where the inference process logs; None = standard error.
    """

    config: Config
    engine: sa.Engine
    sessions: sessionmaker[Session]
    spool: Spool
    results: Path
    manifests: dict[str, Manifest]
    metrics: Metrics
    installation: Installation
    clock: Clock
    log_file: Path | None = None

    @property
    def owner(self) -> str:
        """Prefix of this node's leases: an earlier life of the same node held the same."""
        return installation.owner_prefix(self.installation.device_uid)

    def health(self, *, worker_alive: bool) -> health.Health:
        """How database, disk, inference process and deliveries are now."""
        facts = health.gather(
            self.sessions,
            self.spool.root,
            low_water_mb=self.config.storage.low_water_mark_mb,
            worker_alive=lambda: worker_alive,
        )
        return health.judge(facts)


def lay(config: Config, clock: Clock, log_file: Path | None) -> Foundation:
    """Open the database, make the directories, read the manifests.

    Raises:
        AgentError: the schema is not this version's, or the installation's identity is damaged.
        InferenceError: a configured pack is not one.
    """
    data_dir = config.storage.data_dir
    data_dir.mkdir(parents=True, exist_ok=True)
    engine = db_engine.create_engine(config.database_url)
    database.require_newest(engine)
    sessions = db_engine.session_factory(engine)
    spool = Spool(data_dir / "spool")
    results = data_dir / "results"
    results.mkdir(mode=0o700, exist_ok=True)
    metrics = Metrics()
    metrics.watch_record(sessions, spool.root)
    return Foundation(
        config=config,
        engine=engine,
        sessions=sessions,
        spool=spool,
        results=results,
        manifests={name: packs.load_manifest(p.path) for name, p in config.packs.items()},
        metrics=metrics,
        installation=installation.load(data_dir, config.results.institution),
        clock=clock,
        log_file=log_file,
    )

"""Prometheus metrics: a registry that is passed around, counted by those who do the work.

What has happened is counted here; how things stand now (queue, states, dead letters, disk) is read
from the database at scrape time by `RecordCollector`, so that a restart cannot make it lie.
Labels never carry patient data: states, rooms, destination names from config.toml.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from db.engine import reading
from db.queries import worklist as queries
from db.states import DeliveryState, StudyState

PREFIX = "worklist_agent"
ROOM_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
RESULT_SECONDS = (5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1800)
WAITING_STATES = (StudyState.ASSEMBLED, StudyState.QUEUED)

log = structlog.get_logger(__name__)


class Metrics:
    """Counters of one agent process; every method may be called from any thread."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._instances = Counter(
            f"{PREFIX}_instances_received",
            "C-STORE requests answered, by outcome (stored, duplicate, refused, failed)",
            ["outcome"],
            registry=self.registry,
        )
        self._bytes = Counter(
            f"{PREFIX}_received_bytes",
            "Bytes of the instances that were stored",
            registry=self.registry,
        )
        self._associations = Gauge(
            f"{PREFIX}_associations_open",
            "DICOM associations open now at our storage and worklist SCP",
            registry=self.registry,
        )
        self._rooms = Histogram(
            f"{PREFIX}_room_seconds",
            "Seconds a study spent being worked on in a room, by outcome (ok, failed)",
            ["room", "outcome"],
            buckets=ROOM_SECONDS,
            registry=self.registry,
        )
        self._result = Histogram(
            f"{PREFIX}_result_seconds",
            "Seconds from a study's last image to its committed priority",
            buckets=RESULT_SECONDS,
            registry=self.registry,
        )
        self._proofs = Counter(
            f"{PREFIX}_proofs",
            "Sent objects looked for at their destination, by outcome (delivered; missing: sent "
            "again; mismatch: held as another patient's; dead)",
            ["destination", "outcome"],
            registry=self.registry,
        )
        self._restarts = Counter(
            f"{PREFIX}_inference_restarts",
            "Times the inference worker process was started again",
            registry=self.registry,
        )

    def instance_received(self, outcome: str, size_bytes: int = 0) -> None:
        """Count one answered C-STORE request and, if it was stored, its bytes."""
        self._instances.labels(outcome).inc()
        self._bytes.inc(size_bytes)

    def watch_associations(self, count: Callable[[], int]) -> None:
        """Ask the storage server, at scrape time, how many associations are open."""
        self._associations.set_function(count)

    def room_done(self, room: str, seconds: float, outcome: str = "ok") -> None:
        """A room has finished (or given up) with a study."""
        self._rooms.labels(room, outcome).observe(seconds)

    def result_committed(self, seconds_since_last_image: float) -> None:
        """A study's priority was committed."""
        self._result.observe(seconds_since_last_image)

    def inference_restarted(self) -> None:
        """The inference worker had to be started again."""
        self._restarts.inc()

    def proof_told(self, destination: str, _kind: str, outcome: str) -> None:
        """What came of looking for a sent object at its destination."""
        self._proofs.labels(destination, outcome).inc()

    def watch_record(self, sessions: sessionmaker[Session], spool_dir: Path) -> None:
        """Add how things stand now, read at scrape time."""
        self.registry.register(RecordCollector(sessions, lambda: free_bytes(spool_dir)))


class RecordCollector(Collector):
    """States, queue, deliveries and free space, read when somebody scrapes."""

    def __init__(
        self, sessions: sessionmaker[Session], spool_free_bytes: Callable[[], int | None]
    ) -> None:
        self._sessions = sessions
        self._spool_free_bytes = spool_free_bytes

    def describe(self) -> Iterator[Metric]:
        """Names only: registering must not open the database."""
        yield from _families().values()

    def collect(self) -> Iterator[Metric]:
        """Read the numbers; an unreachable database leaves its numbers out, not the rest."""
        families = _families()
        try:
            self._read_database(families)
        except SQLAlchemyError as error:
            log.warning("metrics_database_unreadable", error_type=type(error).__name__)
        free = self._spool_free_bytes()
        if free is not None:
            families["spool_free_bytes"].add_metric([], free)
        yield from (family for family in families.values() if family.samples)

    def _read_database(self, families: dict[str, GaugeMetricFamily]) -> None:
        with reading(self._sessions) as session:
            states = queries.studies_by_state(session)
            deliveries = queries.deliveries_by_destination(session)
        for state in StudyState:
            families["studies"].add_metric([state.value], states.get(state, 0))
        for (destination, name), number in sorted(deliveries.items()):
            families["deliveries"].add_metric([destination, name], number)
        waiting = sum(states.get(state, 0) for state in WAITING_STATES)
        families["queue_depth"].add_metric([], waiting)
        dead = sum(n for (_, name), n in deliveries.items() if name == DeliveryState.DEAD)
        families["dead_letters"].add_metric([], dead)


def free_bytes(directory: Path) -> int | None:
    """Free space of the file system below `directory`; None when it cannot be read."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None


def _families() -> dict[str, GaugeMetricFamily]:
    table: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("studies", "Studies by state of the flow", ("state",)),
        ("queue_depth", "Studies that wait for routing or for the model", ()),
        ("deliveries", "Outbox rows by destination and state", ("destination", "state")),
        ("dead_letters", "Deliveries given up; any value above 0 needs a human", ()),
        ("spool_free_bytes", "Free bytes of the file system that holds the spool", ()),
    )
    return {
        name: GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=list(labels))
        for name, text, labels in table
    }

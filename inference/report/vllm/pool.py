"""The replicas: who is asked next, how many requests each carries, who waits and in which order."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from inference.report.errors import DraftError
from inference.report.vllm.breaker import Breaker
from inference.report.vllm.errors import NoReplica, ServerFault, ServerPoisoned, ServerUnfit

log = structlog.get_logger(__name__)


@dataclass
class Replica:
    """One server.

    Attributes:
        url: without path.
        breaker: whether it may be asked.
        outstanding: requests under way.
        admitted: it was inspected since it last failed.
        by_priority: it schedules by priority.
        corrupted: its count of corrupted requests when last read; None = it keeps no count.
    """

    url: str
    breaker: Breaker = field(default_factory=Breaker)
    outstanding: int = 0
    admitted: bool = False
    by_priority: bool = False
    corrupted: float | None = None
    gate: threading.Lock = field(default_factory=threading.Lock)


class Pool:
    """Hands out replicas: the least busy one, to the most urgent study that waits."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        max_concurrency: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is asked yet.

        Args:
            replicas: at least one.
            max_concurrency: requests at once on each.
            clock: monotonic seconds.
        """
        self.replicas = list(replicas)
        self._limit = max_concurrency
        self._clock = clock
        self._free = threading.Condition()
        self._waiting: list[tuple[int, int]] = []
        self._tickets = itertools.count()

    @contextmanager
    def lease(self, rank: int, deadline: float, avoid: Collection[str] = ()) -> Iterator[Replica]:
        """A replica for one request; its breaker learns from how the request ends.

        Args:
            rank: 0 waits the shortest.
            deadline: in the clock's time.
            avoid: URLs to ask only if nobody else is left.

        Raises:
            NoReplica: all are broken, or busy until the deadline.
        """
        replica = self._take(rank, deadline, avoid)
        try:
            yield replica
            replica.breaker.succeeded()
        except (ServerFault, ServerUnfit) as error:
            self._failed(replica, error)
            raise
        except DraftError:  # the request was wrong, not the server
            replica.breaker.succeeded()
            raise
        except BaseException:
            replica.breaker.ended()
            raise
        finally:
            with self._free:
                replica.outstanding -= 1
                self._free.notify_all()

    def _failed(self, replica: Replica, error: DraftError) -> None:
        at_once = isinstance(error, (ServerPoisoned, ServerUnfit))
        replica.admitted = False  # what comes back may be another server
        opened = replica.breaker.failed(self._clock(), at_once=at_once)
        log.warning("vllm_replica_failed", peer=replica.url, reason=str(error), give_up=opened)

    def _take(self, rank: int, deadline: float, avoid: Collection[str]) -> Replica:
        with self._free:
            ticket = (rank, next(self._tickets))
            self._waiting.append(ticket)
            try:
                while True:
                    replica = self._choose(avoid) if ticket == min(self._waiting) else None
                    if replica is not None:
                        replica.breaker.begin()
                        replica.outstanding += 1
                        return replica
                    self._wait(deadline)
            finally:
                self._waiting.remove(ticket)
                self._free.notify_all()

    def _choose(self, avoid: Collection[str]) -> Replica | None:
        now = self._clock()
        able = [
            one
            for one in self.replicas
            if one.outstanding < self._limit and one.breaker.allows(now)
        ]
        able.sort(key=lambda one: (one.url in avoid, one.outstanding))
        return able[0] if able else None

    def _wait(self, deadline: float) -> None:
        now = self._clock()
        if now >= deadline:
            raise NoReplica("no vLLM replica became free in time; add one or raise timeout_s")
        opens = [one.breaker.opens_at() for one in self.replicas]
        if all(at is not None for at in opens):
            soonest = min(at for at in opens if at is not None)
            if soonest > deadline:
                raise NoReplica(
                    "every vLLM replica failed and is left alone for a while; see `worklist-agent "
                    "vllm check`"
                )
            deadline = min(deadline, max(soonest, now + 0.01))
        self._free.wait(max(deadline - now, 0.0))

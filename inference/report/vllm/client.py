"""Asks replicas for a generation: inspects them first and tries again where that can help."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import structlog

from inference.report.errors import DraftError
from inference.report.vllm import http, inspection, safety
from inference.report.vllm.errors import ServerFault, ServerPoisoned, ServerUnfit
from inference.report.vllm.pool import Pool, Replica
from inference.report.vllm.safety import Answer

log = structlog.get_logger(__name__)

#: Makes the body for a replica: told whether requests may carry a priority there.
MakeBody = Callable[[bool], dict[str, Any]]


@dataclass(frozen=True)
class Patience:
    """How long and how often.

    Attributes:
        timeout_s: for one generation, waiting and all attempts included.
        max_attempts: of one generation.
        connect_s: to reach a server.
        stream: ask for tokens as they come.
        stall_s: longest silence within a stream.
        first_retry_s: doubled with each attempt, with jitter.
    """

    timeout_s: float = 120.0
    max_attempts: int = 3
    connect_s: float = 5.0
    stream: bool = False
    stall_s: float = 20.0
    first_retry_s: float = 0.5

    def delay_s(self, attempt: int, spread: float) -> float:
        """Before attempt `attempt` + 1; half of it is jitter."""
        return float(self.first_retry_s * 2.0 ** (attempt - 1) * (0.5 + 0.5 * spread))


class VllmClient:
    """Generations from any of several replicas of one model."""

    def __init__(
        self,
        client: httpx.Client,
        pool: Pool,
        model: str,
        width: int,
        patience: Patience,
        *,
        needed_tokens: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        spread: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is asked yet.

        Args:
            client: with key; see `inference.report.house.client`.
            pool: the replicas.
            model: name under which they serve it.
            width: of the model.
            patience: time-outs and attempts.
            needed_tokens: prompt and answer must fit the server's context.
            clock: monotonic seconds, the pool's.
            sleep: waits between attempts.
            spread: source of jitter, uniform in [0, 1).
        """
        self._http = client
        self._pool = pool
        self._model = model
        self._width = width
        self._patience = patience
        self._needed = needed_tokens
        self._clock, self._sleep, self._spread = clock, sleep, spread

    def generate(
        self,
        path: str,
        make_body: MakeBody,
        *,
        rank: int,
        prompt_tokens: int | None,
        at_least: int = 0,
    ) -> Answer:
        """One answer.

        Args:
            path: ``/v1/completions`` or ``/v1/chat/completions``.
            make_body: the request.
            rank: of the study's priority; 0 is the most urgent.
            prompt_tokens: rows sent; None where the server writes the prompt.
            at_least: rows such a prompt has at the least.

        Raises:
            DraftError: transient ones after all attempts, permanent ones at once.
        """
        deadline = self._clock() + self._patience.timeout_s
        failed: set[str] = set()
        attempt = 1
        while True:
            try:
                with self._pool.lease(rank, deadline, failed) as replica:
                    failed.add(replica.url)
                    body = self._ask(replica, path, make_body, deadline)
                    answer = safety.check_answer(
                        body, prompt_tokens=prompt_tokens, at_least=at_least
                    )
                    self._check_corruption(replica)
                    return answer
            except (ServerFault, ServerUnfit) as error:
                wait = self._patience.delay_s(attempt, self._spread())
                if attempt >= self._patience.max_attempts or self._clock() + wait >= deadline:
                    raise
                log.info("vllm_attempt_failed", attempts=attempt, reason=str(error))
                self._sleep(wait)
                attempt += 1

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()

    def _ask(self, replica: Replica, path: str, make_body: MakeBody, deadline: float) -> Any:
        self._admit(replica)
        url, body = replica.url + path, make_body(replica.by_priority)
        left = deadline - self._clock()
        if left <= 0:
            raise DraftError("no time left to draft; raise timeout_s", permanent=False)
        patience = self._patience
        if not patience.stream:
            return http.post(self._http, url, body, _timeout(left, left, patience.connect_s))
        timeout = _timeout(min(left, patience.stall_s), left, patience.connect_s)
        return http.post_stream(self._http, url, body, timeout, deadline, self._clock)

    def _admit(self, replica: Replica) -> None:
        """Inspect a replica that is new or came back; others wait for the one that does it."""
        if replica.admitted:
            return
        with replica.gate:
            if replica.admitted:
                return
            facts = inspection.inspect(self._http, replica.url, self._model, self._width)
            if facts.poisoned:
                raise ServerPoisoned(f"{replica.url}: it computes NaN; restart it")
            if refusals := facts.refusals(self._model, self._needed):
                raise ServerUnfit(f"{replica.url}: {'; '.join(refusals)}")
            replica.by_priority, replica.corrupted = facts.by_priority, facts.corrupted
            replica.admitted = True
            log.info("vllm_replica_admitted", peer=replica.url, version=facts.version)

    def _check_corruption(self, replica: Replica) -> None:
        """A count that grew while we asked: our answer may be one of those."""
        before, now = replica.corrupted, inspection.corrupted(self._http, replica.url)
        if now is None:
            return
        replica.corrupted = now
        if before is not None and now > before:
            log.error("vllm_corrupted_requests", peer=replica.url, count=now)
            raise ServerPoisoned("the server counted requests with NaN while it answered")


def _timeout(read: float, left: float, connect: float) -> httpx.Timeout:
    return httpx.Timeout(read, connect=min(connect, left), write=left, pool=left)

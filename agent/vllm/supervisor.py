"""Keeps a vLLM server running: starts, watches, ends all of it when part dies, starts anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

import structlog

from agent.vllm.group import Group

log = structlog.get_logger(__name__)

#: Asks ``/health``; False while the server cannot serve.
Healthy = Callable[[], bool]
#: Why a server that answers must be started anew all the same; empty = it need not.
Fault = Callable[[], str]


@dataclass(frozen=True)
class Watch:
    """How patient the supervisor is.

    Attributes:
        start_s: a server that is not healthy by then is ended and started again.
        poll_s: between looks at the process.
        unhealthy_s: a server that was healthy and is not for so long is ended.
        stop_s: between the request to stop and the kill.
        first_delay_s: before a restart; doubled with each that does not hold, up to `max_delay_s`.
        steady_s: a server that served so long starts the delays anew.
    """

    start_s: float = 900.0
    poll_s: float = 0.5
    unhealthy_s: float = 15.0
    stop_s: float = 20.0
    first_delay_s: float = 1.0
    max_delay_s: float = 60.0
    steady_s: float = 300.0

    def delay_s(self, failures: int) -> float:
        """Before the start that follows so many failures in a row."""
        return float(min(self.first_delay_s * 2.0 ** min(failures - 1, 30), self.max_delay_s))


class Supervisor:
    """One server, kept running until `stop`."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        healthy: Healthy,
        watch: Watch | None = None,
        output: IO[bytes] | None = None,
        say: Callable[[str], None] = lambda _: None,
        fault: Fault = lambda: "",
    ) -> None:
        """Nothing is started yet.

        Args:
            command: the server's.
            environment: all of it.
            healthy: whether it answers.
            watch: patience.
            output: where the server writes; None = where we do.
            say: told of starts and ends, for the terminal.
            fault: asked while it serves.
        """
        self._command, self._environment = list(command), dict(environment)
        self._healthy, self._fault = healthy, fault
        self._watch = watch or Watch()
        self._output = output
        self._say = say
        self._stopping = threading.Event()
        self.ready = threading.Event()
        self.group: Group | None = None
        self.starts = 0

    def run(self) -> None:
        """Serve until `stop` is called; every return leaves no process behind."""
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            reason = self._serve_once()
            if self._stopping.is_set():
                break
            held = time.monotonic() - began >= self._watch.steady_s
            failures = 1 if held else failures + 1
            delay = self._watch.delay_s(failures)
            log.warning("vllm_restarting", reason=reason, restarts=self.starts, seconds=delay)
            self._say(f"{reason}; starting again in {delay:g} s")
            self._stopping.wait(delay)

    def stop(self) -> None:
        """End the server; `run` returns when nothing is left."""
        self._stopping.set()

    def _serve_once(self) -> str:
        """One life of the server; returns why it ended."""
        self.starts += 1
        self.group = Group(self._command, self._environment, self._output)
        log.info("vllm_started", restarts=self.starts - 1)
        try:
            return self._wait_until_ready(self.group) or self._guard(self.group)
        finally:
            self.ready.clear()
            self.group.end(self._watch.stop_s)

    def _wait_until_ready(self, group: Group) -> str:
        deadline = time.monotonic() + self._watch.start_s
        while time.monotonic() < deadline:
            if self._stopping.wait(self._watch.poll_s):
                return "stopped"
            if not group.alive:
                return f"the server ended while it started (status {group.process.returncode})"
            if self._healthy():
                self.ready.set()
                log.info("vllm_ready")
                self._say("serving")
                return ""
        return f"the server was not ready after {self._watch.start_s:g} s"

    def _guard(self, group: Group) -> str:
        last_good = time.monotonic()
        while not self._stopping.wait(self._watch.poll_s):
            if not group.alive:
                return f"the server ended (status {group.process.returncode})"
            now = time.monotonic()
            if self._healthy():
                last_good = now
                if fault := self._fault():
                    log.error("vllm_must_restart", reason=fault)
                    return fault
            elif now - last_good > self._watch.unhealthy_s:
                return f"the server was not healthy for {self._watch.unhealthy_s:g} s"
        return "stopped"

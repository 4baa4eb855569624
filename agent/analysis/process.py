"""The inference process: a child that owns the models, so that its crash is not the agent's.

The parent sends one `Request` and waits for (kind, value) messages: progress texts, then one
answer. A child that dies or exceeds its time is replaced; the studies are tried again. An
explanation is told to stop when a study waits for its turn.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from agent.analysis.child import YIELD, Request, main
from agent.analysis.inline import InlineEngine, Progress
from agent.errors import AnalysisError, AnalysisInterrupted, ExplanationYielded
from inference.findings import Findings
from inference.study import StudyInput

if TYPE_CHECKING:
    from inference.explain.options import ExplainOptions
    from inference.report.tokens import VisualTokens

__all__ = ["InferenceProcess", "InlineEngine"]

log = structlog.get_logger(__name__)

POLL_S = 0.5
STOP_S = 5.0


def _nothing() -> None:
    """The default preparation of a child."""


class InferenceProcess:
    """Starts, watches and restarts the child; one request at a time."""

    def __init__(
        self,
        packs: Mapping[str, Path],
        device: str,
        timeout_s: float,
        on_restart: Callable[[], None] = lambda: None,
        prepare: Callable[[], None] = _nothing,
    ) -> None:
        """Nothing is started yet.

        Args:
            packs: configured name -> pack directory.
            device: as `inference.devices.choose`.
            timeout_s: a study that takes longer ends the child.
            on_restart: told of every replacement of a child, for metrics.
            prepare: run first in the child, e.g. to configure its log; must be picklable.
        """
        self._packs = dict(packs)
        self._device = device
        self._timeout_s = timeout_s
        self._on_restart = on_restart
        self._prepare = prepare
        self._lock = threading.Lock()
        self._waiting: set[int] = set()  # threads whose request is more urgent than explanations
        self._child: Any = None
        self._connection: Connection | None = None
        self._stopping = False
        self.restarts = 0

    @property
    def alive(self) -> bool:
        """Whether a child is running (it is started by the first study, or by `start`)."""
        return self._child is not None and self._child.is_alive()

    def start(self) -> None:
        """Start the child now, so that the first study finds the models loaded."""
        with self._lock:
            self._ensure_child()

    def revive(self) -> None:
        """Replace a child that died while it had nothing to do; never waits for a study."""
        if self._child is None or self.alive or not self._lock.acquire(blocking=False):
            return
        try:
            if not self._stopping:
                self._ensure_child()
        finally:
            self._lock.release()

    def analyse(self, study: StudyInput, pack: str, progress: Progress | None = None) -> Findings:
        """Analyse one study in the child.

        Raises:
            AnalysisError: the child died or did not answer in time (transient), or could not
                analyse with this pack at all.
            AnalysisInterrupted: `stop` was called meanwhile.
        """
        found: Findings = self._ask(Request("analyse", (study,), pack), progress)
        return found

    def analyse_many(
        self, studies: Sequence[StudyInput], pack: str, progress: Progress | None = None
    ) -> list[Findings]:
        """Analyse studies together in the child, in `timeout_s` for each of them.

        Raises:
            AnalysisError: as `analyse`; then no study has an answer, and one of them may be what
                the child died of: try each alone.
            AnalysisInterrupted: `stop` was called meanwhile.
        """
        if not studies:
            return []
        found: list[Findings] = self._ask(Request("analyse_many", tuple(studies), pack), progress)
        return found

    def analyse_aside(self, study: StudyInput, pack: str, seconds: float) -> Findings:
        """Analyse a study that no reader waits for, unless another request comes.

        Raises:
            ExplanationYielded: one came, or the time is over.
            AnalysisError: as `analyse`.
            AnalysisInterrupted: `stop` was called meanwhile.
        """
        found: Findings = self._ask(Request("analyse", (study,), pack, aside_s=seconds), None)
        return found

    def explain(
        self,
        study: StudyInput,
        pack: str,
        findings: Findings,
        options: ExplainOptions,
        progress: Progress | None = None,
    ) -> Findings:
        """Findings with groundings, made in the child unless another request comes.

        Raises:
            ExplanationYielded: one came.
            AnalysisError: as `analyse`.
            AnalysisInterrupted: `stop` was called meanwhile.
        """
        subject = (findings.to_json(), options)
        found: Findings = self._ask(Request("explain", (study,), pack, subject), progress)
        return found

    def visual_tokens(
        self, study: StudyInput, pack: str, progress: Progress | None = None
    ) -> VisualTokens:
        """What a language model is shown of a study, made in the child.

        Raises:
            AnalysisError: as `analyse`; also where the pack or this version cannot make them.
            AnalysisInterrupted: `stop` was called meanwhile.
        """
        found: VisualTokens = self._ask(Request("visual_tokens", (study,), pack), progress)
        return found

    def stop(self) -> None:
        """End the child; a study in progress is interrupted and given back."""
        self._stopping = True
        self._end_child()

    def _ask(self, request: Request, progress: Progress | None) -> Any:
        with self._turn(urgent=not request.gives_way, wait_s=request.aside_s):
            if self._stopping:
                raise _interrupted()
            connection = self._ensure_child()
            try:
                connection.send(request)
                return self._answer(connection, request, progress)
            except (EOFError, OSError) as error:
                code = self._end_child()
                if self._stopping:
                    raise _interrupted() from error
                raise AnalysisError(
                    f"the inference process died (exit code {code}); it is started again"
                ) from error

    @contextlib.contextmanager
    def _turn(self, *, urgent: bool, wait_s: float | None) -> Iterator[None]:
        """The child for one request; what gives way and has it sees that somebody waits."""
        me = threading.get_ident()
        if urgent:
            self._waiting.add(me)
        try:
            if not self._lock.acquire(timeout=-1 if wait_s is None else wait_s):
                raise ExplanationYielded("the model was busy with other studies")
        finally:
            self._waiting.discard(me)
        try:
            yield
        finally:
            self._lock.release()

    def _answer(self, connection: Connection, request: Request, progress: Progress | None) -> Any:
        allowed_s = self._timeout_s * len(request.studies)
        deadline = time.monotonic() + allowed_s
        given_up = time.monotonic() + (request.aside_s or allowed_s)
        told = not request.gives_way
        while True:
            if not told and (self._waiting or time.monotonic() > given_up):
                connection.send(YIELD)
                told = True
            if connection.poll(POLL_S):
                kind, value = connection.recv()
                if kind == "answer":
                    return request.decode(value)
                if kind == "error":
                    raise AnalysisError(value)
                if kind == YIELD:
                    raise ExplanationYielded(value)
                if progress is not None:
                    progress(value)
            elif time.monotonic() > deadline:
                self._end_child()
                raise AnalysisError(
                    f"no answer within {allowed_s:g} s; raise inference.timeout_s if studies "
                    "of this size are expected"
                )

    def _ensure_child(self) -> Connection:
        if self.alive and self._connection is not None:
            return self._connection
        if self._child is not None:
            self.restarts += 1
            self._on_restart()
            log.warning("inference_process_restarted", restarts=self.restarts)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._child = context.Process(
            target=main,
            args=(theirs, self._packs, self._device, os.getpid(), self._prepare),
            name="inference",
            daemon=True,
        )
        self._child.start()
        theirs.close()
        self._connection = ours
        return ours

    def _end_child(self) -> int | None:
        child, connection = self._child, self._connection
        self._connection = None
        if child is None:
            return None
        if child.is_alive():
            child.terminate()
            child.join(STOP_S)
        if child.is_alive():
            child.kill()
        child.join(STOP_S)
        if connection is not None:
            connection.close()  # last: a thread that waits for an answer sees the child's end first
        return int(child.exitcode) if child.exitcode is not None else None


def _interrupted() -> AnalysisInterrupted:
    return AnalysisInterrupted("the agent stops; the study is taken up again at the next start")

"""The inference process: a child that owns the models, so that its crash is not the agent's.

The parent sends one `_Request` and waits for (kind, value) messages: progress texts, then one
answer. A child that dies or exceeds its time is replaced; the studies are tried again.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from agent import faults
from agent.analysis.inline import InlineEngine, Progress
from agent.errors import AnalysisError, AnalysisInterrupted
from inference.errors import DeviceError
from inference.findings import Findings
from inference.study import StudyInput

if TYPE_CHECKING:
    from inference.report.tokens import VisualTokens

__all__ = ["InferenceProcess", "InlineEngine"]

log = structlog.get_logger(__name__)

POLL_S = 0.5
STOP_S = 5.0


def _nothing() -> None:
    """The default preparation of a child."""


@dataclass(frozen=True)
class _Request:
    """What the child is asked: a method of `InlineEngine` over studies."""

    method: str
    studies: tuple[StudyInput, ...]
    pack: str

    def answer(self, engine: InlineEngine, progress: Progress) -> Any:
        """The method's answer as it crosses the border: findings as the text that is stored."""
        if self.method == "analyse_many":
            found = engine.analyse_many(self.studies, self.pack, progress)
            return [findings.to_json() for findings in found]
        (study,) = self.studies
        if self.method == "visual_tokens":
            return engine.visual_tokens(study, self.pack, progress)
        return engine.analyse(study, self.pack, progress).to_json()

    def decode(self, value: Any) -> Any:
        """The inverse, in the parent."""
        if self.method == "analyse_many":
            return [Findings.from_json(text) for text in value]
        return value if self.method == "visual_tokens" else Findings.from_json(value)


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
        found: Findings = self._ask(_Request("analyse", (study,), pack), progress)
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
        found: list[Findings] = self._ask(_Request("analyse_many", tuple(studies), pack), progress)
        return found

    def visual_tokens(
        self, study: StudyInput, pack: str, progress: Progress | None = None
    ) -> VisualTokens:
        """What a language model is shown of a study, made in the child.

        Raises:
            AnalysisError: as `analyse`; also where the pack or this version cannot make them.
            AnalysisInterrupted: `stop` was called meanwhile.
        """
        found: VisualTokens = self._ask(_Request("visual_tokens", (study,), pack), progress)
        return found

    def stop(self) -> None:
        """End the child; a study in progress is interrupted and given back."""
        self._stopping = True
        self._end_child()

    def _ask(self, request: _Request, progress: Progress | None) -> Any:
        with self._lock:
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

    def _answer(self, connection: Connection, request: _Request, progress: Progress | None) -> Any:
        allowed_s = self._timeout_s * len(request.studies)
        deadline = time.monotonic() + allowed_s
        while True:
            if connection.poll(POLL_S):
                kind, value = connection.recv()
                if kind == "answer":
                    return request.decode(value)
                if kind == "error":
                    raise AnalysisError(value)
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
            target=_child_main,
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


def _child_main(
    connection: Connection,
    packs: Mapping[str, Path],
    device: str,
    parent: int,
    prepare: Callable[[], None],
) -> None:
    """Serve studies until the parent closes the pipe, asks us to stop, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    prepare()
    import inference.engine  # noqa: F401  now, so that the first study finds the libraries loaded

    engine = InlineEngine(packs, device)
    with contextlib.suppress(EOFError, OSError):
        while _serve(engine, connection, connection.recv()):
            pass


def _serve(engine: InlineEngine, connection: Connection, request: _Request) -> bool:
    """Answer one request; False when this process is of no use any more."""
    try:
        answer = request.answer(engine, lambda text: connection.send(("progress", text)))
    except Exception as error:  # noqa: BLE001  the edge of the child: the parent records it
        connection.send(("error", faults.describe(error)))
        return not isinstance(error, DeviceError)  # only a new process gets a new device context
    connection.send(("answer", answer))
    return True


def _interrupted() -> AnalysisInterrupted:
    return AnalysisInterrupted("the agent stops; the study is taken up again at the next start")


def _exit_with(parent: int) -> None:
    """Leave when the parent is gone, in the middle of a study too: its lease will free it."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(3)

"""The inference process: a child that owns the models, so that its crash is not the agent's.

The parent sends (StudyInput, pack name) and waits for (kind, value) messages: progress texts, then
one answer. A child that dies or exceeds its time is replaced; the study is tried again.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog

from agent import faults
from agent.errors import AnalysisError, AnalysisInterrupted
from inference.errors import DeviceError
from inference.findings import Findings
from inference.study import StudyInput

log = structlog.get_logger(__name__)

Progress = Callable[[str], None]
POLL_S = 0.5
STOP_S = 5.0


def _nothing() -> None:
    """The default preparation of a child."""


class InferenceProcess:
    """Starts, watches and restarts the child; one study at a time."""

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
        with self._lock:
            if self._stopping:
                raise _interrupted()
            connection = self._ensure_child()
            try:
                connection.send((study, pack))
                return self._answer(connection, progress)
            except (EOFError, OSError) as error:
                code = self._end_child()
                if self._stopping:
                    raise _interrupted() from error
                raise AnalysisError(
                    f"the inference process died (exit code {code}); it is started again"
                ) from error

    def stop(self) -> None:
        """End the child; a study in progress is interrupted and given back."""
        self._stopping = True
        self._end_child()

    def _answer(self, connection: Connection, progress: Progress | None) -> Findings:
        deadline = time.monotonic() + self._timeout_s
        while True:
            if connection.poll(POLL_S):
                kind, value = connection.recv()
                if kind == "findings":
                    return Findings.from_json(value)
                if kind == "error":
                    raise AnalysisError(value)
                if progress is not None:
                    progress(value)
            elif time.monotonic() > deadline:
                self._end_child()
                raise AnalysisError(
                    f"no answer within {self._timeout_s:g} s; raise inference.timeout_s if studies "
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


class InlineEngine:
    """The same interface in this process: for `analyze`, tests and ``executor = "inline"``."""

    alive = True
    restarts = 0

    def __init__(self, packs: Mapping[str, Path], device: str) -> None:
        self._packs = dict(packs)
        self._device = device
        self._models: _Models | None = None

    def start(self) -> None:
        """Load nothing yet; packs are loaded by the first study that needs them."""

    def revive(self) -> None:
        """Nothing to replace."""

    def stop(self) -> None:
        """Nothing to end."""

    def analyse(self, study: StudyInput, pack: str, progress: Progress | None = None) -> Findings:
        """Analyse one study here.

        Raises:
            InferenceError: a pack or the device cannot be used.
        """
        if self._models is None:
            self._models = _Models(self._packs, self._device)
        return self._models.analyse(study, pack, progress)


class _Models:
    """The engine under the names that configuration gives its packs."""

    def __init__(self, directories: Mapping[str, Path], device: str) -> None:
        from inference import packs
        from inference.engine import Engine

        self._names = {key: packs.load_manifest(path).name for key, path in directories.items()}
        # one pack may be configured twice, say live for CT and in shadow mode for MR
        self._engine = Engine(list(dict.fromkeys(directories.values())), device)

    def analyse(self, study: StudyInput, pack: str, progress: Progress | None = None) -> Findings:
        return self._engine.analyse(study, self._names[pack], progress)


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
        while _serve(engine, connection, *connection.recv()):
            pass


def _serve(engine: InlineEngine, connection: Connection, study: StudyInput, pack: str) -> bool:
    """Answer one study; False when this process is of no use any more."""
    try:
        findings = engine.analyse(study, pack, lambda text: connection.send(("progress", text)))
    except Exception as error:  # noqa: BLE001  the edge of the child: the parent records it
        connection.send(("error", faults.describe(error)))
        return not isinstance(error, DeviceError)  # only a new process gets a new device context
    connection.send(("findings", findings.to_json()))
    return True


def _interrupted() -> AnalysisInterrupted:
    return AnalysisInterrupted("the agent stops; the study is taken up again at the next start")


def _exit_with(parent: int) -> None:
    """Leave when the parent is gone, in the middle of a study too: its lease will free it."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(3)

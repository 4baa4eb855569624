"""The inference process from inside: what it can be asked, and the loop that answers."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import faults
from agent.analysis.inline import InlineEngine, Progress
from agent.errors import ExplanationYielded
from inference.errors import DeviceError
from inference.findings import Findings
from inference.study import StudyInput

if TYPE_CHECKING:
    from inference.explain.options import ExplainOptions

YIELD = "yield"
"""Sent by the parent in the middle of what gives way; the child sends it back as it gives up."""


@dataclass(frozen=True)
class Request:
    """What the child is asked: a method of `InlineEngine` over studies."""

    method: str
    studies: tuple[StudyInput, ...]
    pack: str
    subject: tuple[str, ExplainOptions] | None = None
    """For an explanation: the stored findings, and what it may cost."""
    aside_s: float | None = None
    """For an analysis that no reader waits for: given up after so long."""

    @property
    def gives_way(self) -> bool:
        """Whether it is given up when another request waits."""
        return self.subject is not None or self.aside_s is not None

    def answer(self, engine: InlineEngine, progress: Progress) -> Any:
        """The method's answer as it crosses the border: findings as the text that is stored."""
        if self.method == "analyse_many":
            found = engine.analyse_many(self.studies, self.pack, progress)
            return [findings.to_json() for findings in found]
        (study,) = self.studies
        if self.subject is not None:
            text, options = self.subject
            said = Findings.from_json(text)
            return engine.explain(study, self.pack, said, options, progress).to_json()
        if self.method == "visual_tokens":
            return engine.visual_tokens(study, self.pack, progress)
        return engine.analyse(study, self.pack, progress).to_json()

    def decode(self, value: Any) -> Any:
        """The inverse, in the parent."""
        if self.method == "analyse_many":
            return [Findings.from_json(text) for text in value]
        return value if self.method == "visual_tokens" else Findings.from_json(value)


def main(
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


def _serve(engine: InlineEngine, connection: Connection, request: Request | str) -> bool:
    """Answer one request; False when this process is of no use any more."""
    if isinstance(request, str):
        return True  # told to yield when the answer was on its way

    gave_way: list[ExplanationYielded] = []

    def progress(text: str) -> None:
        connection.send(("progress", text))
        if gave_way or (connection.poll() and connection.recv() == YIELD):
            gave_way.append(ExplanationYielded("another study waited for the model"))
            raise gave_way[0]

    try:
        answer = request.answer(engine, progress)
    except ExplanationYielded as error:
        connection.send((YIELD, str(error)))
        return True
    except Exception as error:  # noqa: BLE001  the edge of the child: the parent records it
        connection.send(("error", faults.describe(error)))
        return not isinstance(error, DeviceError)  # only a new process gets a new device context
    if gave_way:  # the engine makes a failed analysis of whatever is raised in it
        connection.send((YIELD, str(gave_way[0])))
    else:
        connection.send(("answer", answer))
    return True


def _exit_with(parent: int) -> None:
    """Leave when the parent is gone, in the middle of a study too: its lease will free it."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(3)

"""Decoders of foreign pixels in processes of their own.

Native decoders crash on damaged codestreams, and a crash here would take the receiver down. A child
that ends, or does not answer, costs the one answer it worked on; the next one gets a new child.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import structlog

from dicom_nodes.web import frames, json_model, rendering, transcode
from dicom_nodes.web.errors import Undecodable, WebRequestError
from dicom_nodes.web.rendering import Look

log = structlog.get_logger(__name__)

Job = Callable[..., bytes]
#: Idle children: each may hold one decoded frame of hundreds of MB.
CHILDREN = 2
TIMEOUT_S = 60.0
#: Address space of a child; a codestream may claim any size.
MAX_MEMORY_BYTES = 8 << 30


def frame(path: Path, number: int) -> bytes:
    """Job: `frames.decoded_frame`."""
    return frames.decoded_frame(path, json_model.open_header(path), number)


def picture(path: Path, number: int, media_type: str, look: Look) -> bytes:
    """Job: `rendering.picture`."""
    return rendering.picture(path, json_model.open_header(path), number, media_type, look)


def explicit_little(path: Path) -> bytes:
    """Job: `transcode.explicit_little`."""
    return transcode.explicit_little(path)


class Decoder:
    """A few children that do jobs; more callers than children wait."""

    def __init__(self, children: int = CHILDREN, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()
        for _ in range(children):
            self._idle.put(_Child())

    def run(self, job: Job, *args: Any) -> bytes:
        """What the job returns.

        Raises:
            WebRequestError: the job raised it, or its child ended or did not answer in time.
            OSError: the job raised it.
        """
        child = self._idle.get()
        try:
            return child.call(job, args, self._timeout_s)
        finally:
            self._idle.put(child)

    def close(self) -> None:
        """End the children that are idle."""
        while True:
            try:
                self._idle.get_nowait().end()
            except queue.Empty:
                return


class _Child:
    """One process, started when it is first needed."""

    def __init__(self) -> None:
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def call(self, job: Job, args: tuple[Any, ...], timeout_s: float) -> bytes:
        try:
            pipe = self._started()
            pipe.send((job, args))
            # nothing within the time is treated like an end
            value = pipe.recv() if pipe.poll(timeout_s) else None
        except (EOFError, ConnectionError):
            value = None
        if value is None:
            log.warning("decoder_ended")
            self.end()
            raise Undecodable("the pixels cannot be decoded: the decoder ended over them")
        if isinstance(value, Exception):
            raise value
        answer: bytes = value
        return answer

    def end(self) -> None:
        """Kill it; a decoder in a loop listens to nothing else."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if process is not None:
            process.kill()
            process.join()
        if pipe is not None:
            pipe.close()

    def _started(self) -> Connection:
        if self._process is not None and self._pipe is not None and self._process.is_alive():
            return self._pipe
        self.end()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs,), name="decoder", daemon=True)
        process.start()
        theirs.close()
        self._process, self._pipe = process, ours
        return ours


def _work(pipe: Connection) -> None:
    """The child: one job after the other until the parent is gone."""
    import resource

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to end
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold patient data
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    while True:
        try:
            job, args = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(_done(job, args))


def _done(job: Job, args: tuple[Any, ...]) -> bytes | Exception:
    try:
        return job(*args)
    except (WebRequestError, OSError) as error:
        return error
    except Exception as error:  # noqa: BLE001 - decoders fail in many ways
        return Undecodable(f"the pixels cannot be decoded ({type(error).__name__})")

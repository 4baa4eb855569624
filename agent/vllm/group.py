"""A process with everything it starts: one group, ended together, leaving nobody behind.

Measured: when vLLM's API server is killed, engine and worker live on as orphans and do not heed
SIGTERM. They stay in its process group, and a subreaper inherits them, so both are used.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.05


class Group:
    """A started command; `end` ends all of it."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None
    ) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches only us."""
        become_subreaper()
        self.process = subprocess.Popen(  # noqa: S603  arguments are a list, no shell
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  only this thread matters: a short call
        )

    @property
    def pid(self) -> int:
        """Of the leader; also the number of group and session."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the leader runs."""
        return self.process.poll() is None

    def members(self) -> list[int]:
        """Processes of the group that run, the leader included."""
        return [pid for pid in _processes() if _group_of(pid) == self.pid]

    def end(self, patience_s: float) -> None:
        """Ask the leader to stop, wait, then kill whoever is left of the group."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience_s)
        self._kill(patience_s)

    def _kill(self, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(POLL_S)
            if _reap(self.pid) and not self.members():
                return
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_S)


def become_subreaper() -> None:
    """Inherit orphans of our descendants, so that they can be waited for."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _die_with_parent() -> None:
    """In the child: be asked to stop should we be killed; vLLM then stops its engine."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # not Linux: only the group protects
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _reap(group: int) -> bool:
    """Take the exit status of inherited members of the group; whether none is left."""
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _processes() -> list[int]:
    return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]


def _group_of(pid: int) -> int | None:
    """The process group of a process that runs; None for those that ended or are zombies."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # the name may hold anything, parentheses included
    state, _, group, *_ = fields.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else int(group)

"""What all real peers in tests share: free ports, waiting for a condition, and being required.

A test that needs a program of the distribution calls `require`: it is skipped where the program is
missing, and fails there when ``WORKLIST_TESTS_REQUIRE_PEERS=1`` says this machine must have it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(what: str, condition: Callable[[], T | None], timeout_s: float = 20.0) -> T:
    """Poll until `condition` returns something true; fail with `what` after the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s:g} s in vain for: {what}")
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Whether somebody accepts TCP connections on that port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def require(program: str | None, name: str) -> str:
    """Return the path of a peer's program, or skip (fail, where peers are required)."""
    if program:
        return program
    if os.environ.get("WORKLIST_TESTS_REQUIRE_PEERS") == "1":
        pytest.fail(f"{name} is not installed, and WORKLIST_TESTS_REQUIRE_PEERS=1 says it must be")
    pytest.skip(f"{name} is not installed")


def find(program: str, *more_directories: str) -> str | None:
    """Path of a program in PATH, /usr/sbin or one of the given directories."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *more_directories])
    return shutil.which(program, path=path)


def stop(process: subprocess.Popen[bytes], timeout_s: float = 15.0) -> None:
    """End a process we started: SIGTERM, then SIGKILL."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

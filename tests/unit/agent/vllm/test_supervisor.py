"""A server that is kept running, and of which nothing is left: with a stand-in of two processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.vllm.group import Group
from agent.vllm.supervisor import Supervisor, Watch

#: A leader with a worker that does not heed SIGTERM, as vLLM's engine; both write their number.
LEADER = """
import os, signal, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", '''
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(60)
''', sys.argv[1]])
def leave(*_):
    worker.kill(); worker.wait(); sys.exit(0)
signal.signal(signal.SIGTERM, leave)
time.sleep(60)
"""
QUICK = Watch(
    start_s=20.0, poll_s=0.02, unhealthy_s=0.2, stop_s=5.0, first_delay_s=0.02, max_delay_s=0.05
)


def _until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class House:
    """A supervisor of the stand-in, run by a thread."""

    def __init__(self, folder: Path, watch: Watch = QUICK, fault: str = "") -> None:
        self.file = folder / "worker"
        self.healthy = True
        self.fault = fault
        self.supervisor = Supervisor(
            [sys.executable, "-S", "-c", LEADER, str(self.file)],
            dict(os.environ),
            lambda: self.healthy and self.file.exists(),
            watch,
            fault=self._fault,
        )

    def _fault(self) -> str:
        fault, self.fault = self.fault, ""
        return fault

    @property
    def group(self) -> Group:
        """Of the server that runs now."""
        assert self.supervisor.group is not None
        return self.supervisor.group


@contextmanager
def _running(house: House) -> Iterator[House]:
    thread = threading.Thread(target=house.supervisor.run)
    thread.start()
    try:
        _until(house.supervisor.ready.is_set)
        yield house
    finally:
        house.supervisor.stop()
        thread.join(30)
    assert not thread.is_alive()
    assert house.group.members() == []


@pytest.mark.parametrize("victim", ["leader", "worker"])
def test_when_a_part_dies_all_of_it_is_replaced(tmp_path: Path, victim: str) -> None:
    """Measured on vLLM: the engine outlives a killed API server and heeds no SIGTERM."""
    with _running(House(tmp_path)) as house:
        first, worker = house.group, int(house.file.read_text())
        house.file.unlink()
        house.healthy = victim == "leader"
        os.kill(first.pid if victim == "leader" else worker, signal.SIGKILL)
        _until(lambda: house.supervisor.starts > 1)
        house.healthy = True
        _until(house.supervisor.ready.is_set)

        assert first.members() == []
        assert not Path(f"/proc/{worker}").exists()
        assert house.group.pid != first.pid


def test_a_fault_that_health_does_not_show_restarts_it(tmp_path: Path) -> None:
    """A server that met NaN answers /health as ever."""
    with _running(House(tmp_path, fault="the server met NaN")) as house:
        _until(lambda: house.supervisor.starts > 1)
        _until(house.supervisor.ready.is_set)


def test_a_server_that_never_becomes_ready_is_started_again(tmp_path: Path) -> None:
    """With a growing wait between."""
    house = House(tmp_path, Watch(start_s=0.1, poll_s=0.02, first_delay_s=0.01, stop_s=5.0))
    house.healthy = False
    thread = threading.Thread(target=house.supervisor.run)
    thread.start()
    _until(lambda: house.supervisor.starts >= 3)
    house.supervisor.stop()
    thread.join(30)

    assert house.group.members() == []


def test_delays_grow_to_a_ceiling() -> None:
    """A server that cannot start does not use up the machine."""
    watch = Watch(first_delay_s=1.0, max_delay_s=60.0)

    assert [watch.delay_s(n) for n in (1, 2, 3, 7, 10_000)] == [1.0, 2.0, 4.0, 60.0, 60.0]


def test_a_killed_supervisor_takes_the_server_with_it(tmp_path: Path, repository: Path) -> None:
    """The kernel asks the leader to stop; a leader that stops ends its workers."""
    file = tmp_path / "worker"
    program = (
        "import os, sys, time; from agent.vllm.group import Group\n"
        f"Group([sys.executable, '-S', '-c', {LEADER!r}, {str(file)!r}], dict(os.environ), None)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=repository) as supervisor:
        _until(lambda: file.exists() and file.read_text().isdigit())
        worker = int(file.read_text())
        supervisor.kill()
    _until(lambda: not Path(f"/proc/{worker}").exists())

"""The sweeps run again and again, whatever happens in one of them."""

from __future__ import annotations

import threading

from factories import peers

from agent.schedule import Schedule, Sweep


def test_every_sweep_runs_repeatedly_until_stopped() -> None:
    """Each at its own pace; after `stop` none."""
    runs = {"one": 0, "two": 0}

    def count(name: str) -> None:
        runs[name] += 1

    schedule = Schedule([Sweep(name, 0.02, lambda name=name: count(name)) for name in runs])
    assert schedule.names == ["one", "two"]
    schedule.start()
    peers.wait_for("both to run twice", lambda: min(runs.values()) >= 2)
    schedule.stop()
    after = dict(runs)

    threading.Event().wait(0.1)
    assert runs == after


def test_failing_sweep_is_tried_again_and_harms_no_other() -> None:
    """A sweep that raises runs again at its time."""
    failures, others = [], []

    def fail() -> None:
        failures.append(1)
        raise ValueError("broken")

    schedule = Schedule([Sweep("bad", 0.02, fail), Sweep("good", 0.02, lambda: others.append(1))])
    schedule.start()
    peers.wait_for("both to run twice", lambda: len(failures) >= 2 and len(others) >= 2)
    schedule.stop()


def test_slow_sweep_never_runs_beside_itself() -> None:
    """A sweep that takes longer than its interval is not started a second time meanwhile."""
    release, most, now = threading.Event(), [0], [0]
    lock = threading.Lock()

    def slow() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        release.wait(10)
        with lock:
            now[0] -= 1

    ticks: list[int] = []
    schedule = Schedule([Sweep("slow", 0.02, slow), Sweep("tick", 0.02, lambda: ticks.append(1))])
    schedule.start()
    peers.wait_for("ten intervals", lambda: len(ticks) >= 10)
    release.set()
    schedule.stop()

    assert most == [1]


def test_stop_before_start_is_harmless() -> None:
    """An agent that failed to start is stopped all the same."""
    Schedule([]).stop()

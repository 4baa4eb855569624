"""Commits are shared by those who wait, in order, and one bad item fails only itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from factories import peers

from agent.intake.group_commit import GroupCommit


def test_a_lone_item_is_committed_by_its_own_thread():
    """No hand-over where nobody else waits."""
    threads = []

    def commit(batch: Sequence[int]) -> list[int]:
        threads.append(threading.current_thread())
        return [item * 2 for item in batch]

    group = GroupCommit(commit)

    assert group.submit(21) == 42
    assert threads == [threading.current_thread()]


def test_those_who_come_during_a_commit_share_the_next():
    """The first holds up the rest, which then go together, each with its own result."""
    batches: list[list[int]] = []
    gate = threading.Event()

    def commit(batch: Sequence[int]) -> list[int]:
        batches.append(list(batch))
        if len(batches) == 1:
            gate.wait(10)
        return [item * 2 for item in batch]

    group = GroupCommit(commit)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(group.submit, 0)
        peers.wait_for("the first commit", lambda: batches)
        others = [pool.submit(group.submit, n) for n in range(1, 8)]
        peers.wait_for("the rest", lambda: len(group._waiting) == 7)
        gate.set()
        results = [future.result(10) for future in (first, *others)]

    assert results == [n * 2 for n in range(8)]
    assert len(batches) == 2
    assert sorted(batches[1]) == list(range(1, 8))


def test_a_bad_item_fails_alone():
    """The others of its batch are committed again, one by one."""

    def commit(batch: Sequence[int]) -> list[int]:
        if 13 in batch:
            raise ValueError("thirteen")
        return list(batch)

    group = GroupCommit(commit)
    with ThreadPoolExecutor(8) as pool:
        futures = {n: pool.submit(group.submit, n) for n in range(10, 18)}
    failed = [n for n, future in futures.items() if future.exception()]

    assert failed == [13]
    assert futures[17].result() == 17
    with pytest.raises(ValueError, match="thirteen"):
        futures[13].result()


def test_nobody_is_lost_under_pressure():
    """Every submit of many threads returns, and every item is committed exactly once."""
    seen: list[int] = []

    def commit(batch: Sequence[int]) -> list[int]:
        seen.extend(batch)
        return list(batch)

    group = GroupCommit(commit)
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(group.submit, range(2000), timeout=30))

    assert results == list(range(2000))
    assert sorted(seen) == list(range(2000))

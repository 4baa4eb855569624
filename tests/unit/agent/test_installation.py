"""Identity of an installation, and that one agent at a time uses its data."""

from __future__ import annotations

import multiprocessing
import socket
from pathlib import Path

import pytest

from agent import installation
from agent.errors import AgentError
from agent.installation import InUse, Occupancy


def test_device_uid_is_made_once_and_kept(tmp_path: Path) -> None:
    """Our results stay recognizable as ours over restarts."""
    first = installation.load(tmp_path / "data")
    second = installation.load(tmp_path / "data")

    assert first == second
    assert first.device_uid.startswith("2.25.")
    assert installation.load(tmp_path / "other").device_uid != first.device_uid


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    """Only the identity lies there."""
    installation.load(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["device_uid"]


@pytest.mark.parametrize("content", ["", "2.25.0", "1.2.3", "2.25.12\n2.25.13", "ÿ"])
def test_damaged_identity_is_refused(tmp_path: Path, content: str) -> None:
    """A silently new identity would let our own results come back as foreign ones."""
    (tmp_path / "device_uid").write_text(content, encoding="latin-1")

    with pytest.raises(AgentError, match="does not hold a UID; restore it"):
        installation.load(tmp_path)


def test_owner_prefix_tells_hosts_and_installations_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hosts that are called alike at the front do not free each other's leases."""
    names = ["radiology-worker-1", "radiology-worker-2"]
    prefixes = set()
    for name in names:
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        prefixes |= {installation.owner_prefix("2.25.1"), installation.owner_prefix("2.25.2")}

    assert len(prefixes) == 4
    assert all(len(prefix) + len("delivery-99") <= 64 for prefix in prefixes)


def test_second_agent_on_the_same_data_is_refused(tmp_path: Path) -> None:
    """It would free the first one's leases and do its work again."""
    with (
        Occupancy(tmp_path),
        pytest.raises(InUse, match=r"another agent runs .* storage\.data_dir"),
    ):
        Occupancy(tmp_path).__enter__()
    with Occupancy(tmp_path):
        pass


def test_lock_of_a_dead_agent_is_gone_with_it(tmp_path: Path) -> None:
    """After kill -9 nobody has to remove a lock file."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(InUse):
        Occupancy(tmp_path).__enter__()

    holder.kill()
    holder.join()

    with Occupancy(tmp_path):
        pass


def _hold(directory: Path, ready: object) -> None:
    import threading

    with Occupancy(directory):
        ready.set()
        threading.Event().wait(60)

"""A disk that is really full: refused with 0xA700, nothing left behind, all well afterwards."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import arrivals, dicom, rows, wire

from agent.intake.handler import IntakeSettings

TMPFS_MB = 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MB}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_and_recovers(small_disk: Path, tmp_path: Path):
    """Instances that do not fit get 0xA700; after room is made the same instance is taken."""
    sessions = rows.sessions(tmp_path)  # the record lies on another disk
    intake = arrivals.handler(small_disk, sessions, settings=IntakeSettings(low_water_bytes=0))
    series = dicom.ct_series(8, rows=512, cols=512)
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * 600_000)
    with wire.serving(intake) as server, wire.Peer(server.port) as peer:
        peer.associate()
        statuses = [
            peer.store(wire.encode(ds), wire.CT, ds.SOPInstanceUID, pdv_bytes=100_000)
            for ds in series
        ]
        left = list(intake.incoming.iterdir())
        filler.unlink()
        refused = series[statuses.index(0xA700)]
        again = peer.store(wire.encode(refused), wire.CT, refused.SOPInstanceUID)

    assert statuses[0] == 0
    assert set(statuses) == {0, 0xA700}
    assert left == []
    assert again == 0


def test_the_low_water_mark_acts_before_the_disk_is_full(small_disk: Path, tmp_path: Path):
    """With a mark of one megabyte the disk never fills; the association goes on."""
    sessions = rows.sessions(tmp_path)
    intake = arrivals.handler(small_disk, sessions, settings=IntakeSettings(low_water_bytes=2**20))
    series = dicom.ct_series(8, rows=512, cols=512)
    statuses = []
    with wire.serving(intake) as server, wire.Peer(server.port) as peer:
        peer.associate()
        for ds in series:
            intake._space._asked_at = -10.0  # as if a second had passed
            statuses.append(peer.store(wire.encode(ds), wire.CT, ds.SOPInstanceUID))

    free = os.statvfs(small_disk)
    assert statuses[0] == 0
    assert statuses[-1] == 0xA700
    assert free.f_bavail * free.f_frsize > 400_000


def test_too_many_open_files_are_out_of_resources(tmp_path: Path):
    """Without a free file descriptor the instance is refused and the association lives on."""
    intake = arrivals.handler(tmp_path, rows.sessions(tmp_path))
    (ds,) = dicom.ct_series(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with wire.serving(intake) as server, wire.Peer(server.port) as peer:
        peer.associate()
        used = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
        blocked = []
        try:
            while True:
                blocked.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        try:
            status = peer.store(wire.encode(ds), wire.CT, ds.SOPInstanceUID)
        finally:
            for fd in blocked:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        again = peer.store(wire.encode(ds), wire.CT, ds.SOPInstanceUID)

    assert (status, again) == (0xA700, 0)

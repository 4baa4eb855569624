"""kill -9 of the receiver in mid-transfer: acknowledged is recorded, recorded is complete."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from factories import dicom, peers, wire
from factories.receiver import Receiver

ASSOCIATIONS, IMAGES = 4, 60


@pytest.mark.slow
def test_a_killed_receiver_loses_nothing_it_acknowledged(tmp_path: Path):
    """Four kills in mid-transfer under four associations, each after so many acknowledgements.

    acknowledged is a subset of recorded, recorded a subset of the complete files, no partial file
    has a final name, and the restarted receiver brings record and spool together again.
    """
    series = dicom.ct_series(IMAGES, rows=256, cols=256)
    datasets = {str(ds.SOPInstanceUID): wire.encode(ds) for ds in series}
    acknowledged: set[str] = set()
    for kill_after in (1, 7, 19, 37):
        receiver = Receiver(tmp_path)
        heard: set[str] = set()
        threads = [
            threading.Thread(target=send, args=(receiver.port, datasets, heard, n))
            for n in range(ASSOCIATIONS)
        ]
        for thread in threads:
            thread.start()
        peers.wait_for("acknowledgements", lambda: len(heard) >= kill_after)  # noqa: B023
        receiver.kill()
        for thread in threads:
            thread.join()
        assert len(heard) < IMAGES, "the transfer was over before the kill"
        acknowledged |= heard
        check(tmp_path, datasets, acknowledged)

    receiver = Receiver(tmp_path)
    try:
        orphans = set(complete(tmp_path, datasets)) - recorded(tmp_path)
        send(receiver.port, datasets, acknowledged, 0, every=1)
    finally:
        receiver.kill()
    assert orphans == set()
    assert acknowledged == set(datasets)
    check(tmp_path, datasets, acknowledged)


def check(folder: Path, datasets: dict[str, bytes], acknowledged: set[str]) -> None:
    """Compare what the sender heard, what the record says and what the disk holds."""
    in_record, on_disk = recorded(folder), complete(folder, datasets)
    assert acknowledged <= in_record
    assert in_record <= set(on_disk)


def send(
    port: int,
    datasets: dict[str, bytes],
    acknowledged: set[str],
    share: int,
    every: int = ASSOCIATIONS,
) -> None:
    """Send a share of the instances; note each success before anything else."""
    uids = list(datasets)[share::every]
    try:
        with wire.Peer(port) as peer:
            peer.associate()
            for uid in uids:
                if peer.store(datasets[uid], wire.CT, uid, pdv_bytes=100_000) == 0:
                    acknowledged.add(uid)
    except (OSError, AssertionError):
        return  # the receiver was killed


def recorded(folder: Path) -> set[str]:
    """SOP Instance UIDs in the record, as another process sees them."""
    with sqlite3.connect(folder / "record.db") as connection:
        found = {uid for (uid,) in connection.execute("SELECT sop_uid FROM instance")}
    connection.close()
    return found


def complete(folder: Path, datasets: dict[str, bytes]) -> dict[str, Path]:
    """Files under their final names; each must hold its whole dataset."""
    found = {}
    for path in (folder / "spool").glob("[0-9]*/*/*"):
        uid = path.stem
        assert path.suffix == ".dcm"
        assert path.read_bytes().endswith(datasets[uid]), "a partial file has a final name"
        found[uid] = path
    return found

"""A very large instance passes through; it is never in memory as a whole."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from factories import dicom, wire
from factories.receiver import Receiver

MEGABYTES = 200
ALLOWED_MIB = 64


@pytest.mark.slow
def test_a_large_instance_does_not_grow_the_receiver(tmp_path: Path):
    """Two hundred megabytes in one instance; the receiver's peak grows by a few."""
    (ds,) = dicom.ct_series(1)
    del ds.PixelData
    piece = bytes(100_000)
    size = MEGABYTES * 10 * len(piece)
    head = wire.encode(ds) + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, size)
    receiver = Receiver(tmp_path)
    try:
        with wire.Peer(receiver.port, timeout_s=60) as peer:
            peer.associate()
            before = receiver.memory_mib("VmRSS")
            peer.send(wire.p_data(wire.pdv(3, 3, wire.store_rq(wire.CT, ds.SOPInstanceUID))))
            peer.send(wire.p_data(wire.pdv(3, 0, head)))
            for _ in range(size // len(piece)):
                peer.send(wire.p_data(wire.pdv(3, 0, piece)))
            peer.send(wire.p_data(wire.pdv(3, wire.LAST)))
            status = peer.status()
            grown = receiver.memory_mib("VmHWM") - before
    finally:
        receiver.kill()

    (kept,) = (tmp_path / "spool").glob("[0-9]*/*/*.dcm")
    assert status == 0
    assert kept.stat().st_size > size
    assert grown < ALLOWED_MIB

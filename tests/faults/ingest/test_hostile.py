"""Peers that hold on, stall or shout: others are served all the while, and all places come back."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import arrivals, dicom, peers, rows, wire

from agent.intake.handler import IntakeHandler

HOSTILE, FRIEND = "127.0.0.66", "127.0.0.2"


@pytest.fixture
def intake(tmp_path: Path) -> IntakeHandler:
    """The shipped intake."""
    return arrivals.handler(tmp_path, rows.sessions(tmp_path))


@contextlib.contextmanager
def crowd(port: int, count: int) -> Iterator[list[wire.Peer]]:
    """Many connections from one hostile address."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(wire.Peer(port, address=HOSTILE)) for _ in range(count)]


def send_one(port: int, number: int = 1) -> int:
    """A friend sends one instance."""
    (ds,) = dicom.ct_series(1, rows=8, cols=8, key=str(number))
    with wire.Peer(port, address=FRIEND) as friend:
        friend.associate()
        status = friend.store(wire.encode(ds), wire.CT, ds.SOPInstanceUID)
        friend.release()
    return status


def test_silent_connections_do_not_keep_others_out(intake: IntakeHandler):
    """A hundred connections that say nothing, from one address."""
    with wire.serving(intake, acse_timeout_s=20) as server, crowd(server.port, 100):
        assert send_one(server.port) == 0


def test_stalled_transfers_do_not_keep_others_out(intake: IntakeHandler):
    """One address holds its share of places inside datasets; others have theirs."""
    settings = {"max_associations": 12, "max_associations_per_peer": 8, "network_timeout_s": 1.0}
    command = wire.pdv(3, 3, wire.store_rq(wire.CT, "1.2.3"))
    with wire.serving(intake, **settings) as server, crowd(server.port, 20) as hostile:
        for peer in hostile:
            peer.send(wire.associate_rq())
        kinds = sorted(peer.receive()[0] for peer in hostile)
        for peer in hostile:
            with contextlib.suppress(OSError):
                peer.send(wire.p_data(command, wire.pdv(3, 0, b"\0" * 1000)))
        status = send_one(server.port)
        peers.wait_for("the stalled places", lambda: server.active_associations == 0, 15)
        again = send_one(server.port, 2)

    assert kinds == [2] * 8 + [3] * 12
    assert (status, again) == (0, 0)
    assert list(intake.incoming.iterdir()) == []


def test_noise_from_many_sides_changes_nothing(intake: IntakeHandler):
    """Random bytes before and after association, resets in between; friends are served."""
    rng = random.Random(7)
    with wire.serving(intake, acse_timeout_s=1, network_timeout_s=1) as server:
        for number in range(30):
            with wire.Peer(server.port, address=HOSTILE) as peer, contextlib.suppress(OSError):
                if rng.random() < 0.6:
                    peer.associate()
                peer.send(rng.choice([b"", wire.p_data(), wire.RELEASE_RQ[:4]]) + os.urandom(300))
            if number % 10 == 0:
                assert send_one(server.port, number) == 0

    assert list(intake.incoming.iterdir()) == []

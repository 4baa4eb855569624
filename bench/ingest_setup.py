"""Two measures beside throughput: memory for a very large instance, and association setup."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pynetdicom import AllStoragePresentationContexts
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from bench.ingest import Bench, send, tcp_environment
from bench.ingest_receivers import PeakMemory, Receiver, running

ASSOCIATIONS = 60
_SYNTAXES = [f"1.2.840.10008.1.2{tail}" for tail in ("", ".1", ".4.70", ".4.90")]
_RELEASE = b"\x05\0\0\0\0\x04\0\0\0\0"


def sync_ms(folder: Path) -> float:
    """Milliseconds of one fdatasync of 8 KB: what a quiet disk and a free core take, or not."""
    took = []
    fd = os.open(folder / "sync-probe", os.O_CREAT | os.O_RDWR, 0o600)
    for _ in range(50):
        os.pwrite(fd, bytes(8192), 0)
        started = time.perf_counter()
        os.fdatasync(fd)
        took.append((time.perf_counter() - started) * 1000)
    os.close(fd)
    return statistics.median(took)


def multiframe(
    names: Sequence[str], folder: Path, bench: Bench, repeats: int
) -> dict[str, dict[str, float]]:
    """Send a 419 MB instance to each receiver; return seconds and memory, the worst of repeats."""
    result: dict[str, dict[str, float]] = {}
    env = tcp_environment("nodelay")
    for name in names:
        more, peaks, seconds = [], [], []
        for _ in range(repeats):
            with (
                running(name, env, bench.cluster, bench.work) as receiver,
                PeakMemory(receiver) as memory,
            ):
                started = time.perf_counter()
                send(receiver.port, [folder], env)
                seconds.append(time.perf_counter() - started)
            more.append(memory.peak_mib - memory.base_mib)
            peaks.append(memory.peak_mib)
        result[name] = {
            "seconds": statistics.median(seconds),
            "more_mib": max(more),
            "peak_mib": max(peaks),
        }
    return result


def associations(names: Sequence[str], bench: Bench) -> dict[str, dict[str, float]]:
    """Open and release associations one after the other; milliseconds of wall and CPU for each."""
    result: dict[str, dict[str, float]] = {}
    env = {**os.environ, "TCP_NODELAY": "1"}
    for name in names:
        result[name] = {}
        for contexts in (1, 128):
            with running(name, env, bench.cluster, bench.work) as receiver:
                result[name] |= _associate(receiver, request(contexts), contexts)
    return result


def _associate(receiver: Receiver, encoded: bytes, contexts: int) -> dict[str, float]:
    _once(receiver.port, encoded)  # the first may load code or fill a cache
    walls = []
    cpu = receiver.cpu_s()
    for _ in range(ASSOCIATIONS):
        started = time.perf_counter()
        _once(receiver.port, encoded)
        walls.append((time.perf_counter() - started) * 1000)
    cpu = (receiver.cpu_s() - cpu) / ASSOCIATIONS * 1000
    return {f"wall_ms_{contexts}": statistics.median(walls), f"cpu_ms_{contexts}": cpu}


def _once(port: int, encoded: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(encoded)
        if _pdu(sock) != 2:
            raise RuntimeError("association not accepted")
        sock.sendall(_RELEASE)
        if _pdu(sock) != 6:
            raise RuntimeError("association not released")


def _pdu(sock: socket.socket) -> int:
    head = _exactly(sock, 6)
    _exactly(sock, int.from_bytes(head[2:], "big"))
    return head[0]


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise RuntimeError("connection closed")
        data += piece
    return data


def request(contexts: int) -> bytes:
    """An A-ASSOCIATE-RQ with so many storage contexts of four transfer syntaxes each."""
    primitive: Any = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "BENCH", "ANY"
    proposed = []
    for number, cx in enumerate(AllStoragePresentationContexts[:contexts]):
        context = build_context(str(cx.abstract_syntax), _SYNTAXES)
        context.context_id = 2 * number + 1
        proposed.append(context)
    primitive.presentation_context_definition_list = proposed
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16382
    implementation.implementation_class_uid = "1.2.3.4"
    primitive.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    encoded: bytes = pdu.encode()
    return encoded

"""C-STORE receive, side by side: this agent, Orthanc, DCMTK's storescp and stock pynetdicom.

    python -m bench.ingest [--quick] [--json FILE] [--markdown FILE]

Every run starts a fresh receiver, sends with DCMTK's storescu (one process for each association)
and checks that all instances arrived. Runs are interleaved; the medians of three are compared.
Our receiver is the shipped server and intake: file and directory fsync'd and the index committed
before success. TCP environment: "shipped" sets nothing (DCMTK and Orthanc leave Nagle's algorithm
on), "nodelay" sets TCP_NODELAY=1 for sender and receiver.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPEATS = 3
ALL = ("ours", "orthanc", "orthanc_postgresql", "storescp_fork", "pynetdicom")
INDEXED = ("ours", "ours_postgresql", "orthanc", "orthanc_postgresql")


@dataclass(frozen=True)
class Cell:
    """One point of comparison."""

    modality: str
    associations: int
    tcp: str
    images: int
    receivers: tuple[str, ...] = ALL

    @property
    def name(self) -> str:
        """Key of the cell in the results."""
        return f"{self.modality} {self.associations} {self.tcp}"


@dataclass(frozen=True)
class Run:
    """One measured transfer."""

    cell: str
    receiver: str
    images_per_s: float
    mb_per_s: float
    cpu_s_per_gb: float


@dataclass(frozen=True)
class Bench:
    """What all runs share.

    Attributes:
        folders: the studies to send, by cell.
        warm: one image to send before measuring.
        cluster: the PostgreSQL server.
        work: where receivers keep their files.
    """

    folders: dict[str, list[Path]]
    warm: list[Path]
    cluster: Any
    work: Path


CELLS = (
    Cell("CT", 1, "shipped", 60),
    Cell("CT", 4, "shipped", 160),
    Cell("CT", 8, "shipped", 320),
    Cell("CT", 1, "nodelay", 160, (*ALL, "ours_postgresql")),
    Cell("CT", 4, "nodelay", 240),
    Cell("CT", 8, "nodelay", 400, (*ALL, "ours_postgresql")),
    Cell("MR", 1, "shipped", 60),
    Cell("MR", 8, "shipped", 320),
    Cell("MR", 1, "nodelay", 240),
    Cell("MR", 4, "nodelay", 400),
    Cell("MR", 8, "nodelay", 640, (*ALL, "ours_postgresql")),
)
QUICK = (
    Cell("CT", 1, "nodelay", 24, ("ours", "orthanc")),
    Cell("CT", 8, "nodelay", 48, INDEXED),
    Cell("CT", 8, "shipped", 48),
)


def main() -> None:
    """Run the benchmark, or (internally) serve as our receiver."""
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
        return
    parser = argparse.ArgumentParser(prog="python -m bench.ingest", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: small, once")
    parser.add_argument("--only", default="", help="cells whose name matches, e.g. '8 nodelay'")
    parser.add_argument("--json", type=Path, help="write all measurements here")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    arguments = parser.parse_args()
    from bench import ingest_report

    plan = QUICK if arguments.quick else CELLS
    plan = tuple(cell for cell in plan if re.search(arguments.only, cell.name))
    results = measure(plan, 1 if arguments.quick else REPEATS)
    text = ingest_report.document(results)
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n")


def measure(cells: tuple[Cell, ...], repeats: int) -> dict[str, Any]:
    """Make the data, run everything and return the measurements."""
    from bench import ingest_data, ingest_setup
    from bench.ingest_receivers import Postgres

    started, load = time.time(), os.getloadavg()
    work = Path(tempfile.mkdtemp(prefix="bench-data-"))
    cluster = Postgres()
    try:
        cluster.start()
        folders = {
            cell.name: ingest_data.make_set(
                work / cell.tcp, cell.modality, cell.associations, cell.images
            )
            for cell in cells
        }
        names = ALL if repeats == REPEATS else ("ours", "orthanc")
        large = ingest_data.make_multiframe(work)
        bench = Bench(folders, ingest_data.make_set(work / "warm", "CT", 1, 1), cluster, work)
        syncs = [ingest_setup.sync_ms(work)]
        runs = transfers(cells, repeats, bench)
        syncs.append(ingest_setup.sync_ms(work))
        memory = ingest_setup.multiframe(names, large, bench, repeats)
        setup = ingest_setup.associations(names, bench)
    finally:
        cluster.stop()
        shutil.rmtree(work, ignore_errors=True)
    return {
        "environment": environment(load, time.time() - started, repeats) | {"sync_ms": syncs},
        "cells": [asdict(cell) | {"name": cell.name} for cell in cells],
        "runs": [asdict(run) for run in runs],
        "multiframe": memory,
        "association_setup": setup,
    }


def transfers(cells: tuple[Cell, ...], repeats: int, bench: Bench) -> list[Run]:
    """Run every cell against every receiver, interleaved, in another order each time."""
    runs: list[Run] = []
    for repeat in range(repeats):
        for cell in cells:
            turn = repeat % len(cell.receivers)
            for receiver in (*cell.receivers[turn:], *cell.receivers[:turn]):
                run = transfer(cell, receiver, bench)
                print(
                    f"{repeat + 1}/{repeats} {run.cell:14} {run.receiver:20}"
                    f"{run.images_per_s:8.0f} img/s {run.cpu_s_per_gb:6.1f} CPU s/GB",
                    file=sys.stderr,
                )
                runs.append(run)
    return runs


def transfer(cell: Cell, name: str, bench: Bench) -> Run:
    """Send one set to a fresh receiver and measure; one image before it loads code and caches."""
    from bench.ingest_receivers import running

    env, folders = tcp_environment(cell.tcp), bench.folders[cell.name]
    size = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    with running(name, env, bench.cluster, bench.work) as receiver:
        send(receiver.port, bench.warm, env)
        cpu = receiver.cpu_s()
        started = time.perf_counter()
        send(receiver.port, folders, env)
        took_s = time.perf_counter() - started
        cpu = receiver.cpu_s() - cpu
        count = receiver.count()
    if count != cell.images + len(bench.warm):
        raise RuntimeError(f"{name} holds {count - len(bench.warm)} of {cell.images} instances")
    return Run(
        cell=cell.name,
        receiver=name,
        images_per_s=cell.images / took_s,
        mb_per_s=size / took_s / 1e6,
        cpu_s_per_gb=cpu / size * 1e9,
    )


def send(port: int, folders: list[Path], env: dict[str, str]) -> None:
    """Send every folder with its own storescu, all at once."""
    senders = [
        subprocess.Popen(
            ["storescu", "+sd", "-R", "-aet", f"BENCH{n}", "127.0.0.1", str(port), str(folder)],
            env=env,
            stdout=subprocess.DEVNULL,
        )
        for n, folder in enumerate(folders)
    ]
    failed = [sender.wait() for sender in senders]  # all of them, whatever the first says
    if any(failed):
        raise RuntimeError("storescu failed")


def tcp_environment(tcp: str) -> dict[str, str]:
    """Environment of sender and receiver: DCMTK and Orthanc read TCP_NODELAY."""
    env = {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}
    return env | {"TCP_NODELAY": "1"} if tcp == "nodelay" else env


def environment(load: tuple[float, float, float], took_s: float, repeats: int) -> dict[str, Any]:
    """What the numbers were measured on."""
    first = subprocess.run(["storescu", "--version"], capture_output=True, text=True, check=False)
    orthanc = subprocess.run(["Orthanc", "--version"], capture_output=True, text=True, check=False)
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "dcmtk": first.stdout.split("\n")[0].strip("$ "),
        "orthanc": orthanc.stdout.split("\n")[0],
        "congestion_control": control.read_text().strip() if control.exists() else "",
        "load_before": load[0],
        "load_after": os.getloadavg()[0],
        "repeats": repeats,
        "took_s": round(took_s),
    }


def serve(folder: Path, port: int, url: str) -> None:
    """Be our receiver: the shipped server and intake on a fresh database."""
    import logging

    import structlog

    from agent import database
    from agent.intake.handler import IntakeHandler
    from agent.intake.spool import Spool
    from db import engine as db_engine
    from dicom_nodes.scp.server import StorageServer
    from dicom_nodes.scp.settings import ServerSettings

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    engine = db_engine.create_engine(url)
    database.upgrade(engine)
    server = StorageServer(
        ServerSettings(port=port), IntakeHandler(Spool(folder / "spool"), engine)
    )
    server.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.stop()


if __name__ == "__main__":
    main()

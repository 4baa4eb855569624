"""The receivers under test, each started fresh for a run, and how to count and measure them."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PLUGINS = (Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc"))
START_TIMEOUT_S = 30.0


@dataclass
class Receiver:
    """A running receiver.

    Attributes:
        port: where it takes C-STORE.
        processes: roots of its process trees (PostgreSQL's too, where it uses one).
        count: instances it holds now.
    """

    port: int
    processes: Sequence[psutil.Process]
    count: Callable[[], int]
    stop: Callable[[], None]

    def tree(self) -> list[psutil.Process]:
        """All processes that work for this receiver."""
        found = []
        for root in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [root, *root.children(recursive=True)]
        return found

    def cpu_s(self) -> float:
        """CPU seconds so far, of live and of ended children."""
        total = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def rss_mib(self) -> float:
        """Resident memory now."""
        total = 0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / 2**20


class PeakMemory:
    """Samples a receiver's memory while a block runs."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._done = threading.Event()
        self.base_mib = self.peak_mib = receiver.rss_mib()

    def __enter__(self) -> PeakMemory:
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            self.peak_mib = max(self.peak_mib, self._receiver.rss_mib())


@dataclass
class Postgres:
    """A throw-away cluster with its durability as shipped; one new database for each run."""

    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="bench-pg")))
    port: int = 0

    def start(self) -> None:
        """Make and start the cluster."""
        self.port = free_port()
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(self.directory, account.pw_uid, account.pw_gid)
        data = str(self.directory / "data")
        self._run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8")
        options = f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1"
        self._run("pg_ctl", "-D", data, "-w", "-l", f"{self.directory}/log", "-o", options, "start")

    def stop(self) -> None:
        """Stop it and remove its files."""
        self._run("pg_ctl", "-D", str(self.directory / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.directory, ignore_errors=True)

    def process(self) -> psutil.Process:
        """The postmaster."""
        pid = (self.directory / "data" / "postmaster.pid").read_text().split()[0]
        return psutil.Process(int(pid))

    def database(self, name: str) -> None:
        """Create an empty database, dropping the one before."""
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres")
        self._run("dropdb", "--if-exists", "--force", *address, name)
        self._run("createdb", *address, name)

    def _run(self, program: str, *arguments: str) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
        command = [str(found[-1]) if found else program, *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")


def ours(folder: Path, env: dict[str, str], _: Postgres | None) -> Receiver:
    """The shipped server and intake on SQLite."""
    url = f"sqlite:///{folder / 'record.db'}"
    receiver = _ours(folder, env, url, [])

    def count() -> int:
        with contextlib.closing(sqlite3.connect(folder / "record.db")) as connection:
            return int(connection.execute("SELECT count(*) FROM instance").fetchone()[0])

    receiver.count = count
    return receiver


def ours_postgresql(folder: Path, env: dict[str, str], cluster: Postgres | None) -> Receiver:
    """The shipped server and intake on PostgreSQL."""
    assert cluster is not None
    cluster.database("ours")
    url = f"postgresql+psycopg://postgres@127.0.0.1:{cluster.port}/ours"
    receiver = _ours(folder, env, url, [cluster.process()])
    receiver.count = lambda: sum(1 for _ in (folder / "spool").glob("[0-9]*/*/*.dcm"))
    return receiver


def _ours(folder: Path, env: dict[str, str], url: str, more: list[psutil.Process]) -> Receiver:
    port = free_port()
    command = [sys.executable, "-m", "bench.ingest", "serve", str(folder), str(port), url]
    return _started(command, folder, env, port, more)


def orthanc(folder: Path, env: dict[str, str], _: Postgres | None) -> Receiver:
    """Orthanc with its SQLite index, durability as shipped."""
    return _orthanc(folder, env, {}, [])


def orthanc_postgresql(folder: Path, env: dict[str, str], cluster: Postgres | None) -> Receiver:
    """Orthanc with its index in PostgreSQL, one connection."""
    assert cluster is not None
    cluster.database("orthanc")
    plugin = next((p for d in PLUGINS if (p := d / "libOrthancPostgreSQLIndex.so").is_file()), None)
    assert plugin is not None, "orthanc-postgresql is not installed"
    config = {
        "Plugins": [str(plugin)],
        "PostgreSQL": {
            "EnableIndex": True,
            "EnableStorage": False,
            "Host": "127.0.0.1",
            "Port": cluster.port,
            "Database": "orthanc",
            "Username": "postgres",
            "Password": "",
            "EnableSsl": False,
            "Lock": False,
        },
    }
    return _orthanc(folder, env, config, [cluster.process()])


def _orthanc(
    folder: Path, env: dict[str, str], more: dict[str, object], others: list[psutil.Process]
) -> Receiver:
    port, http = free_port(), free_port()
    config = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": http,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "OverwriteInstances": False,
        **more,
    }
    (folder / "storage").mkdir()
    (folder / "orthanc.json").write_text(json.dumps(config))
    program = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
    receiver = _started([program, str(folder / "orthanc.json")], folder, env, port, others)

    def count() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/statistics", timeout=30) as answer:
            return int(json.load(answer)["CountInstances"])

    receiver.count = count
    return receiver


def storescp(folder: Path, env: dict[str, str], _: Postgres | None) -> Receiver:
    """DCMTK's storescp, one process for each association; no fsync, no index."""
    port = free_port()
    command = ["storescp", "--fork", "-aet", "STORESCP", "-od", str(folder), str(port)]
    receiver = _started(command, folder, env, port, [])
    receiver.count = lambda: sum(1 for p in folder.iterdir() if p.name[:3] in ("CT.", "MR."))
    return receiver


def stock_pynetdicom(folder: Path, env: dict[str, str], _: Postgres | None) -> Receiver:
    """Pynetdicom's own storescp application; no fsync, no index."""
    port = free_port()
    (folder / "out").mkdir()
    command = [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-q"]
    receiver = _started([*command, "-od", str(folder / "out")], folder, env, port, [])
    receiver.count = lambda: sum(1 for _ in (folder / "out").iterdir())
    return receiver


RECEIVERS: dict[str, Callable[[Path, dict[str, str], Postgres | None], Receiver]] = {
    "ours": ours,
    "ours_postgresql": ours_postgresql,
    "orthanc": orthanc,
    "orthanc_postgresql": orthanc_postgresql,
    "storescp_fork": storescp,
    "pynetdicom": stock_pynetdicom,
}


@contextlib.contextmanager
def running(
    name: str, env: dict[str, str], cluster: Postgres | None, work: Path
) -> Iterator[Receiver]:
    """Run a fresh receiver for the length of a block.

    Its files stay until the end of the benchmark: ext4 without journal makes new files slowly for
    minutes after many were removed, and that would fall upon the next receiver. What the one before
    left unwritten would, too.
    """
    os.sync()
    receiver = RECEIVERS[name](Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work)), env, cluster)
    try:
        yield receiver
    finally:
        receiver.stop()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _started(
    command: list[str], folder: Path, env: dict[str, str], port: int, more: list[psutil.Process]
) -> Receiver:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _listens(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                f"{command[0]} did not start: {(folder / 'log').read_text()[-2000:]}"
            )
        time.sleep(0.02)

    def stop() -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    return Receiver(port, [psutil.Process(process.pid), *more], count=lambda: 0, stop=stop)


def _listens(port: int) -> bool:
    """Look for the socket without connecting: a probe would be an association to some."""
    wanted = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(wanted) and fields[3] == "0A":
                return True
    return False

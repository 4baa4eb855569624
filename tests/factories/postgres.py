"""A throw-away PostgreSQL cluster on an ephemeral port, and fresh databases in it.

    with postgres.running() as cluster:
        engine = db.engine.create_engine(cluster.database())

The server refuses to run as root: there it runs as the distribution's user ``postgres``, in a
directory of its own, because pytest's directories are closed to other users.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from factories import peers

USER = "postgres"


class Cluster:
    """A running PostgreSQL server; every `database()` is new and empty."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self._numbers = itertools.count(1)

    def database(self) -> str:
        """Create an empty database and return its SQLAlchemy URL."""
        name = f"test{next(self._numbers)}"
        _run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, name)
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{name}"


@contextmanager
def running() -> Iterator[Cluster]:
    """Run a cluster for the length of a block; nothing of it stays."""
    peers.require(_program("initdb"), "PostgreSQL")
    directory = Path(tempfile.mkdtemp(prefix="pg"))
    cluster = Cluster(directory, peers.free_port())
    try:
        _give_to_server_user(directory)
        data = str(directory / "data")
        _run("initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        # fsync off: the tests' database need not survive a power loss
        options = f"-p {cluster.port} -k {directory} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = str(directory / "log")
        _run("pg_ctl", "-D", data, "-w", "-t", "60", "-l", log, "-o", options, "start")
        try:
            yield cluster
        finally:
            _run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _program(name: str) -> str | None:
    newest_first = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return peers.find(name, *map(str, newest_first))


def _run(name: str, *arguments: str) -> None:
    command = [peers.require(_program(name), f"PostgreSQL's {name}"), *arguments]
    if os.geteuid() == 0:
        command = ["runuser", "-u", USER, "--", *command]
    # not pipes: pg_ctl's server would hold them open for ever
    with tempfile.TemporaryFile() as output:
        code = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False)
        output.seek(0)
        assert code.returncode == 0, f"{name} failed: {output.read().decode(errors='replace')}"


def _give_to_server_user(directory: Path) -> None:
    if os.geteuid() == 0:
        account = pwd.getpwnam(USER)
        os.chown(directory, account.pw_uid, account.pw_gid)

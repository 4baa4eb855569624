"""A receiver process to kill and to measure: the shipped server and intake on one directory.

`Receiver(folder)` starts it; as ``python -m factories.receiver FOLDER`` it prints
its port and serves until it is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from agent.intake import recovery
from agent.intake.handler import IntakeHandler, IntakeSettings
from agent.intake.spool import Spool
from db import engine as db_engine
from db import models
from dicom_nodes.scp.server import StorageServer
from dicom_nodes.scp.settings import ServerSettings

ROOT = Path(__file__).resolve().parents[2]


class Receiver:
    """A receiver process on a directory that survives it."""

    def __init__(self, folder: Path) -> None:
        self._log = (folder / "receiver.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "factories.receiver", str(folder)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"port "):
                self.port = int(line.split()[1])
                return
        self.kill()
        raise AssertionError((folder / "receiver.log").read_text()[-2000:])

    def memory_mib(self, name: str) -> float:
        """VmRSS or VmHWM (the peak) of the process."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise AssertionError(f"no {name}")

    def kill(self) -> None:
        """No goodbye."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


def main(folder: Path) -> None:
    """Serve until killed."""
    engine = db_engine.create_engine(f"sqlite:///{folder / 'record.db'}")
    models.Study.metadata.create_all(engine)
    spool = Spool(folder / "spool")
    recovery.reconcile(spool, engine)
    handler = IntakeHandler(spool, engine, IntakeSettings(low_water_bytes=0))
    server = StorageServer(ServerSettings(port=0), handler)
    server.start()
    sys.stdout.write(f"port {server.port}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

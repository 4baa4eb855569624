"""Orthanc as the demo's PACS, if it is installed: free ports, all below the work directory."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

from agent.errors import AgentError
from dicom_nodes.errors import NodeError
from dicom_nodes.node import Node
from dicom_nodes.scu import echo

START_S = 30.0


class OrthancMissing(AgentError):
    """Orthanc was asked for and cannot be used."""

    permanent = True


class OrthancPacs:
    """The same face as `agent.demo.pacs.EmbeddedPacs`: AE title, port, start and stop."""

    def __init__(self, directory: Path, *, ae_title: str = "ORTHANC") -> None:
        self.directory = directory
        self.ae_title = ae_title
        self.host = "127.0.0.1"
        self.port = 0
        self.http_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> OrthancPacs:
        """Start it and wait until it answers C-ECHO.

        Raises:
            OrthancMissing: the program is not there, or did not come up.
        """
        program = shutil.which("Orthanc")
        if program is None:
            raise OrthancMissing(
                "Orthanc is not installed; install it (Debian: apt-get install orthanc) or leave "
                "out --pacs orthanc"
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port, self.http_port = _free_port(), _free_port()
        configuration = self.directory / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(), indent=1))
        with (self.directory / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  the program that was found above
                [program, str(configuration)], stdout=log, stderr=log
            )
        self._wait()
        return self

    def stop(self) -> None:
        """Stop it; what it stored stays below its directory."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._process = None

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        node = Node(self.ae_title, self.host, self.port, timeout_s=5)
        while True:
            try:
                echo.echo(node)
            except NodeError as error:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    self.stop()
                    raise OrthancMissing(
                        f"Orthanc did not start; see {self.directory / 'orthanc.log'}"
                    ) from error
                time.sleep(0.2)
            else:
                return

    def _configuration(self) -> dict[str, object]:
        storage = str(self.directory / "storage")
        return {
            "Name": "worklist-agent demo",
            "StorageDirectory": storage,
            "IndexDirectory": storage,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "HttpPort": self.http_port,
            "DicomPort": self.port,
            "DicomAet": self.ae_title,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "UnknownSopClassAccepted": True,
        }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

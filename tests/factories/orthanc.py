"""A throw-away Orthanc: own configuration and storage in a test's directory, ephemeral ports.

    with orthanc.running(tmp_path) as pacs:      # C-STORE to pacs.dicom_port, STOW to pacs.web_url
        assert pacs.instances() == []

`Orthanc(...)` without `start()` is a PACS that is down; its ports are already decided.
"""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from factories import peers

PLUGIN_DIRECTORIES = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc")


class Orthanc:
    """One Orthanc process over DIMSE, REST and (with the plugin) DICOMweb.

    Args:
        directory: for configuration, log and storage; survives stop and start.
        modalities: name -> (AE title, host, port) of the peers it may send to (C-MOVE).
        authorization: ``user:password`` for the REST calls made here.
        config: further keys of Orthanc's configuration; they win.
    """

    def __init__(
        self,
        directory: Path,
        *,
        ae_title: str = "ORTHANC",
        modalities: Mapping[str, tuple[str, str, int]] | None = None,
        dicomweb: bool = True,
        authorization: str = "",
        **config: Any,
    ) -> None:
        self.directory = directory
        self.ae_title = ae_title
        self.host = "127.0.0.1"
        self.dicom_port = peers.free_port()
        self.http_port = peers.free_port()
        self._authorization = authorization
        self._config = self._configuration(modalities or {}, dicomweb) | config
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Root of the REST API."""
        return f"http://{self.host}:{self.http_port}"

    @property
    def web_url(self) -> str:
        """Root of DICOMweb."""
        return f"{self.url}/dicom-web"

    def start(self) -> Orthanc:
        """Start it and wait until it answers over HTTP and listens for DICOM."""
        program = peers.require(peers.find("Orthanc"), "Orthanc")
        (self.directory / "storage").mkdir(parents=True, exist_ok=True)
        path = self.directory / "orthanc.json"
        path.write_text(json.dumps(self._config, indent=1))
        with (self.directory / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(path)], stdout=log, stderr=log, cwd=self.directory
            )
        peers.wait_for(f"Orthanc (see {self.directory}/orthanc.log)", self._ready, 30)
        return self

    def stop(self) -> None:
        """Stop it; what it stored stays and is there after the next start."""
        if self._process:
            peers.stop(self._process)
            self._process = None

    def get(self, path: str) -> Any:
        """GET a REST path; JSON decoded."""
        return json.loads(self.request("GET", path))

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Make one REST call and return the body.

        Raises:
            AssertionError: the answer is not 200.
        """
        connection = http.client.HTTPConnection(self.host, self.http_port, timeout=30)
        try:
            connection.request(method, path, body, self._headers())
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        assert response.status == 200, f"{method} {path}: HTTP {response.status}"
        return content

    def upload(self, path: Path) -> None:
        """Put one Part-10 file into its storage over REST."""
        self.request("POST", "/instances", path.read_bytes())

    def instances(self, **tags: str) -> list[dict[str, str]]:
        """Main DICOM tags of the stored instances (SOPInstanceUID, ...) that match `tags`."""
        query = {"Level": "Instance", "Query": tags, "Expand": True}
        found = json.loads(self.request("POST", "/tools/find", json.dumps(query).encode()))
        return [instance["MainDicomTags"] | {"ID": instance["ID"]} for instance in found]

    def sop_uids(self, **tags: str) -> list[str]:
        """SOP Instance UIDs of the stored instances that match `tags`, sorted."""
        return sorted(instance["SOPInstanceUID"] for instance in self.instances(**tags))

    def file(self, sop_uid: str) -> bytes:
        """The stored Part-10 file of an instance."""
        (instance,) = self.instances(SOPInstanceUID=sop_uid)
        return self.request("GET", f"/instances/{instance['ID']}/file")

    def _headers(self) -> dict[str, str]:
        pair = base64.b64encode(self._authorization.encode()).decode()
        return {"Authorization": f"Basic {pair}"} if self._authorization else {}

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (
            f"Orthanc ended with {self._process.returncode}: "
            + (self.directory / "orthanc.log").read_text(errors="replace")[-2000:]
        )
        try:
            self.get("/system")
        except (OSError, http.client.HTTPException, AssertionError):
            return False
        return peers.listens(self.dicom_port)

    def _configuration(
        self, modalities: Mapping[str, tuple[str, str, int]], dicomweb: bool
    ) -> dict[str, Any]:
        return {
            "Name": "test",
            "StorageDirectory": str(self.directory / "storage"),
            "IndexDirectory": str(self.directory / "storage"),
            "Plugins": [str(p) for p in _plugins("libOrthancDicomWeb.so")] if dicomweb else [],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": self.ae_title,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "DicomModalities": {
                name: {"AET": ae, "Host": host, "Port": port}
                for name, (ae, host, port) in modalities.items()
            },
            "StableAge": 2,
            "OverwriteInstances": False,
            "UnknownSopClassAccepted": True,
        }


@contextmanager
def running(directory: Path, **options: Any) -> Iterator[Orthanc]:
    """Run an Orthanc for the length of a block; options as of `Orthanc`."""
    pacs = Orthanc(directory, **options)
    try:
        yield pacs.start()
    finally:
        pacs.stop()


def _plugins(name: str) -> list[Path]:
    found = [Path(directory, name) for directory in PLUGIN_DIRECTORIES]
    present = [path for path in found if path.is_file()][:1]
    peers.require(str(present[0]) if present else None, name)
    return present

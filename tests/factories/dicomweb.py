"""A running DICOMweb server over a fresh spool and database, and raw STOW requests.

with dicomweb.serving(tmp_path) as server:
server.client().store_instances(datasets)
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dicomweb_client.api import DICOMwebClient
from factories import rows
from pydicom.dataset import Dataset
from sqlalchemy.orm import Session, sessionmaker
from starlette.requests import HTTPConnection

from agent.access.principal import Principal, Role
from agent.health import Check, Health, Severity
from agent.intake.handler import IntakeHandler, IntakeSettings
from agent.intake.spool import Spool
from agent.observability.metrics import Metrics
from agent.own_series import OwnSeries
from agent.settings import PrioritySettings, WebSettings
from agent.settings_dicomweb import DicomWebSettings
from agent.web.app import create_app
from agent.web.dependencies import WebDependencies
from agent.web.dicomweb.catalog import DicomWeb
from agent.web.server import WebServer
from db.models import Study

BOUNDARY = "==a-boundary=="


class Door:
    """Lets in whoever asks, as an administrator, or in the role that the request names."""

    login_path = ""

    def identify(self, connection: HTTPConnection) -> Principal | None:
        """Role by header ``x-role``; ``nobody`` is not known."""
        role = connection.headers.get("x-role", Role.ADMINISTRATOR)
        return None if role == "nobody" else Principal("tester", Role(role))


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    def reasons(self) -> dict[str, int]:
        """SOP Instance UID -> Failure Reason of a STOW response."""
        failed = self.json().get("00081198", {}).get("Value", [])
        return {one["00081155"]["Value"][0]: one["00081197"]["Value"][0] for one in failed}

    def stored(self) -> list[str]:
        """SOP Instance UIDs that a STOW response lists as stored."""
        return [one["00081155"]["Value"][0] for one in self.json()["00081199"]["Value"]]


@dataclass(frozen=True)
class Server:
    """A web server with DICOMweb, and what stands behind it."""

    port: int
    sessions: sessionmaker[Session]
    spool: Path
    results: Path

    @property
    def url(self) -> str:
        """Root of DICOMweb."""
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def client(self) -> DICOMwebClient:
        """A client that we did not write."""
        return DICOMwebClient(self.url)

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """One raw request below the root; a body that is an iterator is sent in chunks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        chunked = body is not None and not isinstance(body, bytes)
        try:
            connection.request(
                method, f"/dicom-web{path}", body, headers or {}, encode_chunked=chunked
            )
            answer = connection.getresponse()
            return Reply(
                answer.status,
                {name.lower(): value for name, value in answer.getheaders()},
                answer.read(),
            )
        finally:
            connection.close()

    def get(self, path: str, accept: str = "application/dicom+json") -> Reply:
        """GET below the root."""
        return self.request("GET", path, headers={"Accept": accept})

    def stow(self, body: Any, path: str = "/studies", **headers: str) -> Reply:
        """POST a multipart body as it is."""
        kind = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
        usual = {"Content-Type": kind, "Accept": "application/dicom+json"}
        return self.request("POST", path, body, usual | headers)

    def study(self, study_uid: str) -> Study | None:
        """The row of a study."""
        with self.sessions() as session:
            return session.scalars(sa.select(Study).filter_by(study_uid=study_uid)).first()

    def add_result(
        self, study_uid: str, dataset: Dataset, kind: str = "sr", *, shadow: bool = False
    ) -> None:
        """A result of ours, as composing leaves it: a file and its rows."""
        with self.sessions.begin() as session:
            study = session.scalars(sa.select(Study).filter_by(study_uid=study_uid)).one()
            analysis = rows.analysis(
                session, study, id=uuid.uuid4().hex, shadow=shadow, pack=uuid.uuid4().hex
            )
            path = f"{analysis.id}/{kind}.dcm"
            (self.results / analysis.id).mkdir(parents=True)
            (self.results / path).write_bytes(file_of(dataset))
            rows.result(
                session,
                analysis,
                kind=kind,
                sop_class_uid=str(dataset.SOPClassUID),
                sop_uid=str(dataset.SOPInstanceUID),
                series_uid=str(dataset.SeriesInstanceUID),
                path=path,
            )


@contextlib.contextmanager
def serving(
    directory: Path, *, low_water_bytes: int = 0, web_host: str = "127.0.0.1", **settings: Any
) -> Iterator[Server]:
    """Serve for the length of a block; keywords are those of `DicomWebSettings`."""
    sessions = rows.sessions(directory)
    bind = sessions.kw["bind"]
    spool, results = Spool(directory / "spool"), directory / "results"
    results.mkdir()
    intake = IntakeHandler(
        spool,
        bind,
        IntakeSettings(low_water_bytes=low_water_bytes),
        is_own=OwnSeries(sessions).is_own,
    )
    web = DicomWeb(
        settings=DicomWebSettings(enabled=True, **settings),
        priority=PrioritySettings(),
        sessions=sessions,
        spool=spool.root,
        results=results,
        intake=intake,
    )
    deps = WebDependencies(
        sessions=sessions,
        web=WebSettings(host=web_host),
        priority=PrioritySettings(),
        metrics=Metrics(),
        health=lambda: Health((Check("database", Severity.OK),)),
        overlay=lambda _study, _label: b"",
        retry_study=lambda _study, _who: None,
        retry_delivery=lambda _delivery, _who: None,
        access=Door(),
        dicomweb=web,
    )
    server = WebServer(create_app(deps), "127.0.0.1", 0)
    server.start()
    try:
        yield Server(server.port, sessions, spool.root, results)
    finally:
        server.stop()
        bind.dispose()


def file_of(dataset: Dataset) -> bytes:
    """A dataset as a Part-10 file."""
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tests write invalid values on purpose
        dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


def part(content: bytes, content_type: str = "application/dicom") -> bytes:
    """One part with the delimiter before it."""
    header = f"--{BOUNDARY}\r\nContent-Type: {content_type}\r\n\r\n".encode()
    return header + content + b"\r\n"


CLOSE = f"--{BOUNDARY}--\r\n".encode()


def body(contents: Iterable[bytes | Dataset], close: bytes = CLOSE) -> bytes:
    """A whole multipart body."""
    files = (one if isinstance(one, bytes) else file_of(one) for one in contents)
    return b"".join(part(one) for one in files) + close


def pieces(content: bytes, size: int) -> Sequence[bytes]:
    """The same bytes in pieces."""
    return [content[at : at + size] for at in range(0, len(content), size)]

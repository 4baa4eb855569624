"""The trail reaches the audit repository over TLS; while it is down nothing is lost."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from factories import access, certificates, rows
from sqlalchemy.orm import Session, sessionmaker
from typer.testing import CliRunner

from agent import database
from agent.audit.kinds import Kind, Occurrence
from agent.audit.record import record
from agent.audit.service import AuditService
from agent.cli import app
from agent.config import from_mapping
from db import engine
from db.models import AuditEvent

DEADLINE_S = 10


class Repository:
    """A syslog receiver over TLS (RFC 5425) that reads octet-counted messages."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.messages: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(DEADLINE_S)
        self.port = self.listener.getsockname()[1]

    def serve_once(self) -> threading.Thread:
        """Take one connection to its end."""
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        return thread

    def _serve(self) -> None:
        plain, _ = self.listener.accept()
        with plain, contextlib.suppress(ssl.SSLError):  # a client that does not trust us
            self._read(plain)

    def _read(self, plain: socket.socket) -> None:
        with self.context.wrap_socket(plain, server_side=True) as secure:
            stream = b""
            while chunk := secure.recv(65536):
                stream += chunk
            while stream:
                length, _, rest = stream.partition(b" ")
                self.messages.append(rest[: int(length)])
                stream = rest[int(length) :]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of 127.0.0.1."""
    return certificates.self_signed(tmp_path_factory.mktemp("audit"))


@pytest.fixture
def repository(certificate: tuple[Path, Path]) -> Iterator[Repository]:
    """Listens; serves when told."""
    made = Repository(*certificate)
    yield made
    made.listener.close()


@pytest.fixture
def trail(tmp_path: Path) -> sessionmaker[Session]:
    """A fresh record."""
    bind = engine.create_engine(f"sqlite:///{tmp_path / 'worklist-agent.db'}")
    database.upgrade(bind)
    return engine.session_factory(bind)


def _service(trail: sessionmaker[Session], **audit: Any) -> AuditService:
    config = from_mapping({"audit": audit}, source="test")
    base: Any = SimpleNamespace(config=config, sessions=trail, clock=access.Clock())
    return AuditService(base)


def _waiting(trail: sessionmaker[Session]) -> int:
    with trail() as session:
        query = sa.select(sa.func.count()).where(AuditEvent.sent_at.is_(None))
        return session.scalar(query) or 0


def _look(trail: sessionmaker[Session]) -> None:
    with trail.begin() as session:
        study = rows.study(session)
        record(session, Occurrence(Kind.VIEWED, "rad", study=study.key), rows.NOW)


@pytest.mark.peers
def test_a_repository_that_was_down_gets_everything_in_order(
    trail: sessionmaker[Session], repository: Repository, certificate: tuple[Path, Path]
):
    """Waits in the table, goes out over TLS, is marked, and is not sent again."""
    tls = {"ca": str(certificate[0])}
    down = _service(trail, repository="127.0.0.1", port=9, tls=tls)
    down.started()
    _look(trail)
    assert down.send_waiting() == 0
    assert _waiting(trail) == 2

    up = _service(trail, repository="127.0.0.1", port=repository.port, tls=tls)
    served = repository.serve_once()
    assert up.send_waiting() == 2
    served.join(DEADLINE_S)

    assert [b"110100" in m for m in repository.messages] == [True, False]
    assert b"110103" in repository.messages[1]
    assert b"Example^Patient" not in b"".join(repository.messages)
    assert _waiting(trail) == 0
    assert up.send_waiting() == 0


@pytest.mark.peers
def test_a_repository_with_a_strange_certificate_gets_nothing(
    trail: sessionmaker[Session], repository: Repository
):
    """The trail names patients by ID."""
    service = _service(trail, repository="127.0.0.1", port=repository.port)
    _look(trail)
    served = repository.serve_once()
    assert service.send_waiting() == 0
    served.join(DEADLINE_S)

    assert repository.messages == []
    assert _waiting(trail) == 1


def test_another_configuration_is_a_security_event(trail: sessionmaker[Session]):
    """Once, at the first start with it; a stop is said only after a start."""
    first = _service(trail)
    first.stopped()
    first.started()
    first.stopped()
    _service(trail).started()
    _service(trail, site="elsewhere").started()

    with trail() as session:
        kinds = list(session.scalars(sa.select(AuditEvent.kind).order_by(AuditEvent.id)))
    assert kinds == [
        "application_started",
        "application_stopped",
        "application_started",
        "application_started",
        "configuration_changed",
    ]


def test_retention_never_takes_what_was_not_sent(trail: sessionmaker[Session]):
    """As long as there is somebody to send it to."""
    _look(trail)
    old: Any = {"keep_days": 0.0001}
    with trail.begin() as session:
        session.execute(sa.update(AuditEvent).values(at=rows.NOW.replace(year=2020)))

    _service(trail, repository="127.0.0.1", **old).forget()
    assert _waiting(trail) == 1
    _service(trail, **old).forget()
    assert _waiting(trail) == 0


def test_the_command_lists_and_exports_and_that_is_audited_too(
    trail: sessionmaker[Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """JSON lines or DICOM messages; who read the log is in the log."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text('[storage]\ndata_dir = "."\n')
    _look(trail)

    listed = CliRunner().invoke(app, ["audit", "list", "--kind", "study_viewed", "--json"])
    exported = CliRunner().invoke(app, ["audit", "export", "--dicom"])

    assert '"who": "rad"' in listed.output
    assert exported.output.count("<AuditMessage>") == 3
    assert "110101" in exported.output
    assert CliRunner().invoke(app, ["audit", "list", "--kind", "x"]).exit_code == 2

"""What is missing before the agent can serve: one check a line, each with its mend."""

from __future__ import annotations

import dataclasses
import enum
import os
import shutil
import socket
from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError

from agent import database
from agent.access import binding
from agent.access.errors import UnsafeBinding
from agent.audit import transport
from agent.audit.transport import AuditNotSent
from agent.config import Config
from agent.delivery import registry
from agent.settings import Destination
from db import engine as db_engine
from db.queries import access
from dicom_nodes.errors import NodeError
from inference import packs
from inference.errors import InferenceError

MB = 1_000_000


class Verdict(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the doctor's report."""

    name: str
    verdict: Verdict
    finding: str
    mend: str = ""


def examine(config: Config) -> Iterator[Check]:
    """Run every check; a failing one does not stop the others."""
    yield Check("configuration", Verdict.OK, "accepted")
    yield _data_dir(config)
    yield _disk(config)
    yield _database(config)
    yield _port("DICOM port", config.dicom.host, config.dicom.port)
    if config.web.enabled:
        yield _port("web port", config.web.host, config.web.port)
        yield from _access(config)
    if config.audit.repository:
        yield _audit(config)
    yield from _packs(config)
    yield _device(config)
    if not config.destinations:
        yield Check(
            "destinations",
            Verdict.WARNING,
            "none: results stay on this machine",
            "add a [[destinations]] entry to the configuration",
        )
    for destination in config.destinations:
        yield _destination(destination, config)


def _data_dir(config: Config) -> Check:
    directory = config.storage.data_dir
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".doctor-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return Check(
            "data directory",
            Verdict.PROBLEM,
            f"{directory}: {error.strerror}",
            "make it writable for this user, or set storage.data_dir",
        )
    return Check("data directory", Verdict.OK, f"{directory} is writable")


def _disk(config: Config) -> Check:
    try:
        free_mb = shutil.disk_usage(config.storage.data_dir).free // MB
    except OSError as error:
        return Check("disk space", Verdict.PROBLEM, str(error.strerror), "see data directory")
    mark = config.storage.low_water_mark_mb
    if free_mb < mark:
        return Check(
            "disk space",
            Verdict.PROBLEM,
            f"{free_mb} MB free, below the low-water mark of {mark} MB: C-STORE is refused",
            "free some space, or move storage.data_dir",
        )
    verdict = Verdict.WARNING if free_mb < 5 * mark else Verdict.OK
    return Check("disk space", verdict, f"{free_mb} MB free (refuses below {mark} MB)")


def _database(config: Config) -> Check:
    mend = "run: worklist-agent db upgrade"
    try:
        found = database.current(db_engine.create_engine(config.database_url))
    except (SQLAlchemyError, ImportError) as error:
        return Check(
            "database",
            Verdict.PROBLEM,
            f"cannot be opened ({type(error).__name__})",
            "check database.url and that the server runs; for PostgreSQL install the "
            "'postgresql' extra",
        )
    needed = database.newest()
    if found != needed:
        return Check(
            "database", Verdict.PROBLEM, f"schema {found or 'empty'}, needs {needed}", mend
        )
    return Check("database", Verdict.OK, f"schema {found}")


def _port(name: str, host: str, port: int) -> Check:
    if port == 0:
        return Check(name, Verdict.WARNING, "0: another free port at every start")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Check(
                name,
                Verdict.WARNING,
                f"{host}:{port} cannot be bound: {error.strerror}",
                "fine if the agent is running; else stop what listens there or choose another",
            )
    return Check(name, Verdict.OK, f"{host}:{port} is free")


def _access(config: Config) -> Iterator[Check]:
    name, web = "web access", config.web
    try:
        warnings = binding.check(web)
    except UnsafeBinding as error:
        yield Check(name, Verdict.PROBLEM, str(error), "see docs/security.md")
        return
    for warning in warnings:
        yield Check(name, Verdict.WARNING, warning, "see docs/security.md")
    if web.auth == "local" and not _has_accounts(config):
        mend = "run: worklist-agent accounts add NAME --role administrator"
        yield Check(name, Verdict.WARNING, "nobody has an account: nobody can log in", mend)
    elif not warnings:
        login = f"login {web.auth}" if web.auth != "none" else "no login"
        tls = "TLS" if web.tls.certificate else "no TLS"
        yield Check(name, Verdict.OK, f"{web.host}: {login}, {tls}")


def _has_accounts(config: Config) -> bool:
    try:
        with db_engine.session_factory(db_engine.create_engine(config.database_url))() as session:
            return any(not account.disabled for account in access.accounts(session))
    except (SQLAlchemyError, ImportError):
        return True  # told by the check of the database


def _audit(config: Config) -> Check:
    where = f"{config.audit.repository}:{config.audit.port} ({config.audit.transport})"
    try:
        transport.send([], config.audit)
    except AuditNotSent as error:
        mend = "events wait in the database until it answers: check host, port and certificates"
        return Check("audit repository", Verdict.PROBLEM, str(error), mend)
    if config.audit.transport == "udp":
        return Check(
            "audit repository",
            Verdict.WARNING,
            f"{where}: a datagram that is lost is not noticed",
            'use transport = "tls"',
        )
    return Check("audit repository", Verdict.OK, f"{where} answers")


def _packs(config: Config) -> Iterator[Check]:
    if not config.packs:
        yield Check("packs", Verdict.PROBLEM, "none configured", "add a [packs.NAME] section")
    for name, settings in config.packs.items():
        try:
            manifest = packs.load_manifest(settings.path)
            packs.verify(settings.path)
        except InferenceError as error:
            yield Check(
                f"pack {name}", Verdict.PROBLEM, str(error), "install the pack again, or correct "
                "its path"
            )  # fmt: skip
            continue
        shadow = ", shadow mode: pushes nothing" if settings.shadow else ""
        if manifest.demonstration:
            yield Check(
                f"pack {name}",
                Verdict.WARNING,
                f"{manifest.version}, whole, DEMONSTRATION only{shadow}",
                "not for patients: install a research pack",
            )
        else:
            yield Check(f"pack {name}", Verdict.OK, f"{manifest.version}, whole{shadow}")


def _device(config: Config) -> Check:
    from inference import devices

    try:
        device = devices.choose(config.inference.device)
    except InferenceError as error:
        return Check("device", Verdict.PROBLEM, str(error), "set inference.device to auto or cpu")
    verdict = Verdict.OK if "cuda" in str(device) else Verdict.WARNING
    note = "" if verdict is Verdict.OK else ": no GPU, large models will be slow"
    return Check("device", verdict, f"{device}{note}")


def _destination(destination: Destination, config: Config) -> Check:
    name = f"destination {destination.name}"
    shadow = " (shadow mode: nothing is pushed)" if destination.shadow else ""
    try:
        channel = registry.any_channel(destination, config.dicom.ae_title)
        channel.check()
    except NodeError as error:
        return Check(name, Verdict.PROBLEM, str(error), "check address, AE titles and firewall")
    return Check(name, Verdict.OK, f"answers{shadow}")

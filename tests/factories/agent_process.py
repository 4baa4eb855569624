"""The real agent as a subprocess: own data directory, free ports, killed and started at will.

    hospital = agent_process.AgentProcess(tmp_path, pack, [agent_process.dicom("pacs", pacs.port)])
    hospital.start()
    hospital.send(files)
    hospital.wait_for_states({"done"})

`die_at` arms one place in its code: when that place is reached, the process kills itself with
SIGKILL. The command stays `python -m agent serve`; the place is put in by `inside/sitecustomize.py`
on its PYTHONPATH, which also writes down every address that the process connects to.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from factories import peers
from sqlalchemy.orm import Session

from agent import config, database
from agent.config import Config
from db import engine as engines
from db.models import Study
from dicom_nodes.errors import NodeError
from dicom_nodes.node import Node
from dicom_nodes.scu import store

REPOSITORY = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).parent / "inside"
START_S = 90.0
SENDER_AE = "SCANNER"


@dataclass(frozen=True)
class DieAt:
    """A place in the agent's code where it dies.

    Attributes:
        function: ``module:qualified.name``.
        when: ``before`` its body runs or ``after`` it returned (before its caller goes on).
        call: at which call, counted from 1.
    """

    function: str
    when: str = "before"
    call: int = 1

    def __str__(self) -> str:
        return f"{self.when} {self.function.rpartition(':')[2]} #{self.call}"

    @property
    def environment(self) -> dict[str, str]:
        """What arms it."""
        return {"DIE_AT": f"{self.function}:{self.when}:{self.call}"}


def dicom(name: str, port: int, ae_title: str = "DEMOPACS", **more: Any) -> dict[str, Any]:
    """A ``[[destinations]]`` entry for a DICOM node on this machine, pushing."""
    entry = {"name": name, "kind": "dicom", "ae_title": ae_title, "port": port, "shadow": False}
    return entry | {"timeout_s": 10.0} | more


def dicomweb(name: str, url: str, **more: Any) -> dict[str, Any]:
    """A ``[[destinations]]`` entry for a DICOMweb server, pushing."""
    return {"name": name, "kind": "dicomweb", "url": url, "shadow": False} | more


def configuration(
    directory: Path, pack: Path, destinations: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Short waits, free ports, one pack for everything, pushing on."""
    return {
        "storage": {"data_dir": str(directory / "data"), "low_water_mark_mb": 64},
        "dicom": {"port": peers.free_port()},
        "web": {"port": peers.free_port(), "refresh_s": 0.5},
        "assembly": {"quiet_s": 0.7},
        "packs": {"test": {"path": str(pack), "shadow": False}},
        "routing": {"rules": [{"name": "all", "when": {"modality": "CT|MR"}, "pack": "test"}]},
        "inference": {"device": "cpu"},
        "destinations": [dict(entry) for entry in destinations],
        "delivery": {"first_retry_s": 0.3, "max_retry_s": 1.0, "lease_s": 20.0},
        "log": {"format": "json", "level": "info"},
        "schedule": {
            "assembly_s": 0.2,
            "lease_s": 0.5,
            "delivery_s": 0.2,
            "digest_s": 0.5,
            "health_s": 1.0,
        },
    }


class AgentProcess:
    """`worklist-agent serve` in a process of its own, and everything a test asks of it.

    Args:
        directory: configuration, logs and data lie below it.
        pack: model pack that reads everything.
        destinations: made by `dicom` and `dicomweb`.
        overrides: section -> keys that replace the defaults of `configuration`.
    """

    def __init__(
        self,
        directory: Path,
        pack: Path,
        destinations: Iterable[Mapping[str, Any]] = (),
        **overrides: Mapping[str, Any],
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        settings = configuration(directory, pack, destinations)
        for section, values in overrides.items():
            settings[section] = {**settings.get(section, {}), **values}
        self.directory = directory
        self.config_file = directory / "config.toml"
        self.config_file.write_text(to_toml(settings), encoding="utf-8")
        self.config: Config = config.load(self.config_file)
        self.data_dir = self.config.storage.data_dir
        self.log_file = directory / "agent.log"
        self.connect_log = directory / "connections.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.engine = engines.create_engine(self.config.database_url)
        database.upgrade(self.engine)
        self.sessions = engines.session_factory(self.engine)

    @property
    def node(self) -> Node:
        """Its DICOM node, as a scanner sees it."""
        dicom_settings = self.config.dicom
        return Node(
            dicom_settings.ae_title,
            "127.0.0.1",
            dicom_settings.port,
            calling_ae=SENDER_AE,
            timeout_s=20,
        )

    @property
    def url(self) -> str:
        """Root of the page and the REST interface."""
        return f"http://127.0.0.1:{self.config.web.port}"

    def start(self, die_at: DieAt | None = None, *, wait: bool = True) -> AgentProcess:
        """Start it; returns when it is ready, or (armed) when it is ready or dead."""
        environment = clean_environment() | (die_at.environment if die_at else {})
        environment |= {"PYTHONPATH": str(INSIDE), "CONNECT_LOG": str(self.connect_log)}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "serve", "-c", str(self.config_file)],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            peers.wait_for(
                f"the agent to be ready (see {self.log_file})",
                lambda: self.ready() or (die_at is not None and not self.running),
                START_S,
            )
        return self

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def ready(self) -> bool:
        """Whether /readyz says so; fails the test when an unarmed agent ended by itself."""
        if self.process is not None and self.process.poll() not in (None, -signal.SIGKILL):
            pytest.fail(f"the agent ended with {self.process.returncode}: {self.log()[-3000:]}")
        with contextlib.suppress(OSError, urllib.error.URLError):
            return urllib.request.urlopen(f"{self.url}/readyz", timeout=5).status == 200
        return False

    def kill(self) -> list[psutil.Process]:
        """SIGKILL; returns the children it leaves behind, who must end by themselves."""
        assert self.process is not None
        children = self.children()
        self.process.kill()
        self.process.wait()
        return children

    def stop(self, timeout_s: float = 40.0) -> int:
        """SIGTERM, and the exit status; nothing for a process that is gone."""
        if self.process is None or self.process.poll() is not None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"the agent did not stop within {timeout_s:g} s: {self.log()[-3000:]}")

    def wait_for_death(self, timeout_s: float = START_S) -> None:
        """Until the armed place was reached."""
        assert self.process is not None
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the armed place was not reached: {self.states()} {self.log()[-2000:]}")
        assert code == -signal.SIGKILL, f"ended with {code}: {self.log()[-3000:]}"

    def children(self) -> list[psutil.Process]:
        """Processes it started (the inference process, multiprocessing's helper)."""
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def send(self, files: Sequence[Path]) -> list[str]:
        """Send once; returns the SOP Instance UIDs that were acknowledged."""
        return [outcome.sop_instance_uid for outcome in self._outcomes(files) if outcome.ok]

    def send_all(self, files: Sequence[Path], timeout_s: float = START_S) -> None:
        """As a scanner does: send again what was not acknowledged, until all of it was."""
        left = {path.stem: path for path in files}

        def sent() -> bool:
            for uid in self.send(list(left.values())):
                left.pop(uid)
            return not left

        peers.wait_for("every instance to be acknowledged", sent, timeout_s)

    def states(self) -> dict[str, str]:
        """StudyInstanceUID -> state."""
        with engines.reading(self.sessions) as session:
            return dict(session.execute(sa.select(Study.study_uid, Study.state)).all())

    def study(self, study_uid: str) -> Study:
        """The row of one study."""
        with engines.reading(self.sessions) as session:
            return session.execute(sa.select(Study).filter_by(study_uid=study_uid)).scalar_one()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A read-only session on its database."""
        with engines.reading(self.sessions) as session:
            yield session

    def wait_until(
        self, study_uids: Iterable[str], state: str = "done", timeout_s: float = 90.0
    ) -> None:
        """Until all these studies are in that state; a failed one ends the wait at once."""
        wanted = list(study_uids)

        def reached() -> bool:
            states = self.states()
            bad = [u for u in wanted if states.get(u) == "failed" and state != "failed"]
            if bad:
                pytest.fail(f"study failed: {self.study(bad[0]).reason}; {self.log()[-3000:]}")
            if not self.running:
                pytest.fail(f"the agent ended: {self.log()[-3000:]}")
            return all(states.get(uid) == state for uid in wanted)

        try:
            peers.wait_for(f"{len(wanted)} studies to be {state}", reached, timeout_s)
        except pytest.fail.Exception as error:
            pytest.fail(f"{error}; they are {self.states()}; log: {self.log()[-3000:]}")

    def get(self, path: str) -> bytes:
        """GET a path of its web server."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=20) as answer:
            body: bytes = answer.read()
            return body

    def get_json(self, path: str) -> Any:
        """GET a path, JSON decoded."""
        return json.loads(self.get(path))

    def log(self) -> str:
        """Everything it wrote to standard output and error."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its log events of that name."""
        lines = (line for line in self.log().splitlines() if line.startswith("{"))
        return [event for line in lines if (event := json.loads(line)).get("event") == name]

    def connections(self) -> set[str]:
        """What it connected to ("connect HOST PORT") and looked up ("lookup NAME")."""
        return (
            set(self.connect_log.read_text().splitlines()) if self.connect_log.exists() else set()
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `worklist-agent ARGUMENTS -c FILE` beside it."""
        return subprocess.run(
            [sys.executable, "-m", "agent", *arguments, "-c", str(self.config_file)],
            cwd=REPOSITORY,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def _outcomes(self, files: Sequence[Path]) -> Iterator[Any]:
        try:
            yield from store.store_each(self.node, files)
        except NodeError:  # nobody there, or not yet
            time.sleep(0.2)


@contextlib.contextmanager
def running(
    directory: Path,
    pack: Path,
    destinations: Iterable[Mapping[str, Any]] = (),
    **overrides: Mapping[str, Any],
) -> Iterator[AgentProcess]:
    """Run the agent for the length of a block; killed at its end if the test left it running."""
    agent = AgentProcess(directory, pack, destinations, **overrides)
    try:
        yield agent.start()
    finally:
        clean_up(agent)


def clean_up(agent: AgentProcess) -> None:
    """End the process whatever happened, and let go of its database."""
    if agent.running:
        agent.kill()
    agent.engine.dispose()


def clean_environment() -> dict[str, str]:
    """The environment without configuration of ours; one thread a library on a shared machine."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("WORKLIST_", "PYTHON"))}
    return keep | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def to_toml(settings: Mapping[str, Any], prefix: str = "") -> str:
    """Nested mappings as TOML; strings, numbers and lists are written as JSON, which TOML reads."""
    plain = {k: v for k, v in settings.items() if not _is_table(v)}
    lines = [f"{key} = {_value(value)}" for key, value in plain.items()]
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            lines += [f"\n[{name}]", to_toml(value, f"{name}.")]
        elif _is_table(value):
            lines += [f"\n[[{name}]]\n{to_toml(entry, f'{name}.')}" for entry in value]
    return "\n".join(lines)


def _is_table(value: Any) -> bool:
    tables = isinstance(value, list) and value and isinstance(value[0], Mapping)
    return isinstance(value, Mapping) or bool(tables)


def _value(value: Any) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)

"""The doctor: every check can fail, and then it says what to mend."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from factories import agent_process, model_packs, peers

from agent import config as configs
from agent import database, doctor
from agent.config import Config
from agent.demo.pacs import EmbeddedPacs
from agent.doctor import Check, Verdict
from db import engine as engines

Make = Callable[..., Config]


class Usage(NamedTuple):
    """Answer of `shutil.disk_usage`."""

    total: int
    used: int
    free: int


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes configurations; sections replace the defaults."""

    def configuration(**sections: Any) -> Config:
        pack = model_packs.bright_pack(tmp_path / "pack")
        settings = agent_process.configuration(tmp_path, pack, [])
        return configs.from_mapping(settings | sections, source="test")

    return configuration


def _checks(config: Config) -> dict[str, Check]:
    return {check.name: check for check in doctor.examine(config)}


def test_healthy_installation_has_no_problem(make: Make, tmp_path: Path) -> None:
    """Everything there and answering; the demonstration pack stays a warning."""
    with EmbeddedPacs(tmp_path / "pacs") as pacs:
        config = make(destinations=[agent_process.dicom("pacs", pacs.port, shadow=True)])
        config.storage.data_dir.mkdir(parents=True)
        database.upgrade(engines.create_engine(config.database_url))
        checks = _checks(config)

    assert {c.verdict for c in checks.values()} <= {Verdict.OK, Verdict.WARNING}
    assert "DEMONSTRATION" in checks["pack test"].finding
    assert "shadow mode" in checks["destination pacs"].finding
    assert not list(config.storage.data_dir.glob(".doctor*"))


def test_missing_database_is_mended_by_a_command(make: Make) -> None:
    """The mend can be pasted."""
    assert _checks(make())["database"].mend == "run: worklist-agent db upgrade"


def test_database_that_cannot_be_opened_is_a_problem(make: Make, tmp_path: Path) -> None:
    """No traceback, no password of a URL."""
    url = f"sqlite:///{tmp_path}/no/such/directory/x.db"
    check = _checks(make(database={"url": url}))["database"]

    assert check.verdict is Verdict.PROBLEM
    assert "check database.url" in check.mend


def test_altered_pack_is_named(make: Make, tmp_path: Path) -> None:
    """The check reads every file."""
    config = make()
    weights = tmp_path / "pack" / "encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    check = _checks(config)["pack test"]

    assert check.verdict is Verdict.PROBLEM
    assert "encoder/model.safetensors" in check.finding


def test_no_pack_and_no_destination_are_told(make: Make) -> None:
    """An agent without a model or without anywhere to send is not finished."""
    checks = _checks(make(packs={}, routing={}))

    assert checks["packs"].verdict is Verdict.PROBLEM
    assert checks["destinations"].verdict is Verdict.WARNING


@pytest.mark.parametrize("kind", ["dicom", "dicomweb"])
def test_archive_that_does_not_answer_is_a_problem(make: Make, kind: str) -> None:
    """Each kind of destination is really asked."""
    port = peers.free_port()
    entry = (
        agent_process.dicom("pacs", port)
        if kind == "dicom"
        else agent_process.dicomweb("pacs", f"http://127.0.0.1:{port}/dicom-web")
    )
    check = _checks(make(destinations=[entry]))["destination pacs"]

    assert check.verdict is Verdict.PROBLEM
    assert str(port) in check.finding
    assert check.mend


@pytest.mark.parametrize("key", ["password_file", "token_file"])
def test_secret_file_that_is_missing_is_a_problem(make: Make, tmp_path: Path, key: str) -> None:
    """The doctor goes on to the next check."""
    entry = agent_process.dicomweb(
        "pacs", "http://127.0.0.1:9/dicom-web", username="agent", **{key: str(tmp_path / "gone")}
    )
    checks = _checks(make(destinations=[entry, agent_process.dicom("other", 9)]))

    assert checks["destination pacs"].verdict is Verdict.PROBLEM
    assert checks["destination other"].verdict is Verdict.PROBLEM


def test_certificate_that_is_missing_is_a_problem(make: Make, tmp_path: Path) -> None:
    """As every other thing a destination needs."""
    entry = agent_process.dicom("pacs", 9, tls={"ca": str(tmp_path / "gone.pem")})

    assert _checks(make(destinations=[entry]))["destination pacs"].verdict is Verdict.PROBLEM


def test_taken_port_is_told(make: Make) -> None:
    """It may be the agent itself, so it is a warning."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        check = _checks(make(dicom={"port": port}))["DICOM port"]

    assert check.verdict is Verdict.WARNING
    assert str(port) in check.finding


@pytest.mark.parametrize(
    ("free_mb", "verdict"), [(100, Verdict.PROBLEM), (3000, Verdict.WARNING), (10**6, Verdict.OK)]
)
def test_disk_space_is_judged_by_the_low_water_mark(
    make: Make, monkeypatch: pytest.MonkeyPatch, free_mb: int, verdict: Verdict
) -> None:
    """Below it images are refused; close above it somebody should know."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, free_mb * 10**6))
    config = make()
    storage = config.storage.model_copy(update={"low_water_mark_mb": 2048})

    check = _checks(config.model_copy(update={"storage": storage}))["disk space"]

    assert check.verdict is verdict


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_directory_that_cannot_be_written_is_a_problem(make: Make, tmp_path: Path) -> None:
    """With the mend."""
    (tmp_path / "closed").mkdir(mode=0o500)
    check = _checks(make(storage={"data_dir": str(tmp_path / "closed")}))["data directory"]

    assert check.verdict is Verdict.PROBLEM


def test_data_directory_that_is_a_file_is_a_problem(make: Make, tmp_path: Path) -> None:
    """The other checks are made all the same."""
    (tmp_path / "file").write_text("x")
    checks = _checks(make(storage={"data_dir": str(tmp_path / "file")}))

    assert checks["data directory"].verdict is Verdict.PROBLEM
    assert "pack test" in checks


def test_unknown_device_is_a_problem(make: Make) -> None:
    """It names the key."""
    check = _checks(make(inference={"device": "cuda:7"}))["device"]

    assert check.verdict is Verdict.PROBLEM
    assert "inference.device" in check.mend


@pytest.mark.parametrize(
    ("web", "verdict", "finding"),
    [
        ({}, Verdict.OK, "no login"),
        ({"host": "0.0.0.0"}, Verdict.PROBLEM, "no TLS"),
        ({"host": "0.0.0.0", "insecure": True}, Verdict.WARNING, "anybody"),
        ({"auth": "local"}, Verdict.WARNING, "nobody has an account"),
    ],
)
def test_who_may_look_is_told(
    make: Make, web: dict[str, Any], verdict: Verdict, finding: str
) -> None:
    """An open page is a problem before it is served, not after."""
    config = make(web=web)
    config.storage.data_dir.mkdir(parents=True, exist_ok=True)
    database.upgrade(engines.create_engine(config.database_url))

    check = _checks(config)["web access"]

    assert check.verdict is verdict
    assert finding in check.finding


def test_an_audit_repository_that_does_not_answer_is_a_problem(make: Make) -> None:
    """Nothing is lost, but somebody has to look."""
    check = _checks(make(audit={"repository": "127.0.0.1", "port": 9}))["audit repository"]

    assert check.verdict is Verdict.PROBLEM

"""The command line: it teaches, speaks JSON, and its exit status means what --help says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from click.testing import Result
from factories import dicom, hospital
from typer.testing import CliRunner

from agent import __version__, cli
from agent.demo.pacs import EmbeddedPacs
from agent.errors import AnalysisError

OK, FAILED, USAGE, CONFIG, DATABASE, PEER = 0, 1, 2, 3, 4, 5
Make = Callable[..., Any]


def _run(*arguments: str) -> Result:
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(cli.app, list(arguments), env=environment)


def _commands(
    command: click.Command | None = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    command = command or typer.main.get_command(cli.app)
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*path, name))


def _json(result: Result) -> Any:
    assert result.exit_code == OK, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("path", list(_commands()), ids=" ".join)
def test_help_of_every_command_teaches(path: tuple[str, ...]) -> None:
    """A sentence on what it does, and a help text for every parameter."""
    result = _run(*path, "--help")
    command: Any = typer.main.get_command(cli.app)
    for name in path:
        command = command.commands[name]

    assert result.exit_code == OK
    assert "Usage:" in result.stdout
    assert len(command.help or "") > 20
    silent = [p.name for p in command.params if not getattr(p, "help", None)]
    assert silent == []


def test_exit_statuses_are_documented() -> None:
    """The numbers below stand in --help."""
    text = " ".join(_run("--help").stdout.split())

    for phrase in (
        "0 done",
        "1 failed",
        "2 wrong usage",
        "3 configuration",
        "4 database",
        "5 a peer",
    ):
        assert phrase in text


def test_version_is_told() -> None:
    """For bug reports."""
    assert _run("--version").stdout == f"worklist-agent {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("studies", "list"),
        ("deliveries", "list"),
        ("packs", "list"),
        ("db", "current"),
        ("config", "show"),
        ("studies", "list", "--state", "failed"),
        ("deliveries", "list", "--state", "dead", "--destination", "pacs"),
    ],
    ids=" ".join,
)
def test_every_listing_speaks_json_and_to_people(ward: Any, arguments: tuple[str, ...]) -> None:
    """The same command for programs and for people; neither names a patient."""
    listed = _json(ward.run(*arguments, *(() if arguments[0] == "config" else ("--json",))))
    shown = ward.run(*arguments)

    assert listed
    assert shown.exit_code == OK
    assert shown.stdout.strip()
    for text in (json.dumps(listed), shown.stdout):
        assert not [w for w in ("Example^", "PAT0", "ACC0", "19600101") if w in text]


def test_studies_are_listed_and_shown_in_full(ward: Any) -> None:
    """Everything about a study but who the patient is, by id or by UID."""
    (failed,) = _json(ward.run("studies", "list", "--state", "failed", "--json"))
    by_id = _json(ward.run("studies", "show", str(failed["id"]), "--json"))
    by_uid = _json(ward.run("studies", "show", failed["study_uid"], "--json"))

    assert by_id == by_uid
    assert set(by_id) == {"study", "series", "analyses", "deliveries", "timeline"}
    assert by_id["deliveries"][0]["last_error"] == "refused"
    text = json.dumps(by_id) + ward.run("studies", "show", str(failed["id"])).stdout
    assert not [w for w in ("Example^", "PAT0", "ACC0", "19600101") if w in text]


def test_failed_study_is_put_back_to_work(ward: Any) -> None:
    """Once; then there is nothing to retry, and the exit status says so."""
    (failed,) = _json(ward.run("studies", "list", "--state", "failed", "--json"))
    reference = str(failed["id"])

    assert ward.run("studies", "retry", reference).exit_code == OK
    (now,) = [s for s in _json(ward.run("studies", "list", "--json")) if s["id"] == failed["id"]]
    assert now["state"] == "composing"
    again = ward.run("studies", "retry", reference)
    assert again.exit_code == FAILED
    assert "nothing failed" in again.stderr


def test_done_study_is_analysed_anew_only_when_asked(ward: Any) -> None:
    """--reanalyse opens a revision; without it a done study stays as it is."""
    (done,) = _json(ward.run("studies", "list", "--state", "done", "--json"))
    reference = str(done["id"])

    refused = ward.run("studies", "retry", reference)
    assert refused.exit_code == FAILED
    assert "--reanalyse" in refused.stderr
    assert ward.run("studies", "retry", reference, "--reanalyse").exit_code == OK
    shown = _json(ward.run("studies", "show", reference, "--json"))["study"]
    assert (shown["state"], shown["revision"]) == ("assembled", 2)


def test_dead_letters_are_sent_again(ward: Any) -> None:
    """One by its id, or all; the study waits for it again."""
    (dead,) = _json(ward.run("deliveries", "list", "--state", "dead", "--json"))

    assert ward.run("deliveries", "retry", str(dead["id"])).exit_code == OK
    assert _json(ward.run("studies", "list", "--state", "delivering", "--json"))
    assert "0 deliveries" in ward.run("deliveries", "retry", "--dead").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("studies", "list", "--state", "lost"), USAGE, "states are: receiving"),
        (("deliveries", "list", "--state", "lost"), USAGE, "states are: pending"),
        (("deliveries", "retry"), USAGE, "give a delivery id, or --dead"),
        (("deliveries", "retry", "1", "--dead"), USAGE, "give a delivery id, or --dead"),
        (("deliveries", "retry", "999"), FAILED, "no delivery 999"),
        (("studies", "show", "999"), FAILED, "no study 999"),
        (("studies", "show", "9" * 40), FAILED, "no study 999"),
        (("studies", "retry", "2.25.404"), FAILED, "no study 2.25.404"),
        (("packs", "show", "unknown"), FAILED, "known: test"),
    ],
)
def test_what_cannot_be_done_is_said(
    ward: Any, arguments: tuple[str, ...], status: int, said: str
) -> None:
    """The message names the mend; the exit status tells a script."""
    result = ward.run(*arguments)

    assert result.exit_code == status
    assert said in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("studies", "list"), ("deliveries", "list"), ("db", "current"), ("serve",)],
    ids=" ".join,
)
def test_database_that_was_never_made_has_its_own_status(
    installation: Any, arguments: tuple[str, ...]
) -> None:
    """4, whatever command meets it first."""
    assert installation.run(*arguments).exit_code == DATABASE


def test_database_is_made_and_told(installation: Any) -> None:
    """`db upgrade` may be repeated; `db current` says that all is well."""
    for _ in range(2):
        assert installation.run("db", "upgrade").exit_code == OK
    (row,) = _json(installation.run("db", "current", "--json"))

    assert row["found"] == row["needed"]


def test_database_driver_that_is_missing_is_named(
    make_installation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback when the extra was not installed."""

    def missing(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    monkeypatch.setattr("sqlalchemy.create_engine", missing)
    url = "postgresql+psycopg://localhost/nothing"
    result = make_installation(database={"url": url}).run("studies", "list")

    assert result.exit_code == DATABASE
    assert "'postgresql' extra" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve",),
        ("studies", "list"),
        ("deliveries", "list"),
        ("packs", "list"),
        ("db", "upgrade"),
        ("doctor",),
        ("config", "check"),
        ("config", "show"),
    ],
    ids=" ".join,
)
def test_refused_configuration_has_its_own_status(
    make_installation: Make, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """3, with file, key and what is allowed."""
    make_installation()
    file = tmp_path / "bad.toml"
    file.write_text("[dicom]\nprot = 1\n")
    result = _run(*arguments, "-c", str(file))

    assert result.exit_code == CONFIG
    assert "dicom.prot" in result.stderr
    assert "did you mean port?" in result.stderr


def test_serve_refuses_a_pack_that_is_none(make_installation: Make, tmp_path: Path) -> None:
    """A message, no traceback."""
    made = make_installation(packs={"test": {"path": str(tmp_path / "none")}})
    made.migrate()
    result = made.run("serve")

    assert result.exit_code == FAILED
    assert "none" in result.stderr
    assert "Traceback" not in result.output


def test_packs_are_shown_and_verified(installation: Any, pack: Path, tmp_path: Path) -> None:
    """By configured name or by directory; an altered file is found."""
    shown = _json(installation.run("packs", "show", "test", "--json"))
    assert {label["label"] for label in shown["labels"]} == {"bright_tissue"}
    assert installation.run("packs", "verify").exit_code == OK
    assert "digest" in installation.run("packs", "show", str(pack)).stdout

    copy = tmp_path / "copy"
    for file in pack.rglob("*"):
        if file.is_file():
            target = copy / file.relative_to(pack)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    weights = copy / "encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    broken = installation.run("packs", "verify", str(copy))
    assert broken.exit_code == FAILED
    assert "encoder/model.safetensors" in broken.stderr


def test_send_delivers_and_tells_a_peer_that_is_not_there(
    installation: Any, tmp_path: Path
) -> None:
    """Exit status 5 for a peer; JSON with counts."""
    folder = dicom.study_dir(tmp_path / "study", dicom.ct_series(n=3, rows=16, cols=16))
    with EmbeddedPacs(tmp_path / "pacs") as pacs:
        arguments = ("--port", str(pacs.port), "--called", pacs.ae_title)
        sent = _json(installation.run("send", str(folder), *arguments, "--json"))
        assert sent == {"sent": 3, "refused": 0}
        assert len(pacs.objects()) == 3

    gone = installation.run("send", str(folder), *arguments)
    assert gone.exit_code == PEER
    assert installation.run("send", str(tmp_path / "missing")).exit_code == USAGE


def test_doctor_finds_what_is_missing_and_says_the_mend(installation: Any) -> None:
    """A database that was not made and an archive that is down are problems: status 1."""
    result = installation.run("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)}

    assert result.exit_code == FAILED
    assert checks["database"]["verdict"] == "problem"
    assert "db upgrade" in checks["database"]["mend"]
    assert checks["destination pacs"]["verdict"] == "problem"
    assert "mend:" in installation.run("doctor").stdout


def test_analyze_writes_findings_and_objects(installation: Any, tmp_path: Path) -> None:
    """Offline: no database, no connection; what it printed is what it wrote."""
    one = hospital.sample(tmp_path, "1")
    out = tmp_path / "out"
    report = _json(
        installation.run("analyze", str(one.files[0].parent), "--out", str(out), "--json")
    )

    assert report == json.loads((out / "findings.json").read_text())
    assert [f["label"] for f in report["findings"] if f["present"]] == ["bright_tissue"]
    assert sorted(report["files"].values()) == sorted(
        ["pm bright_tissue", "sc", "seg bright_tissue", "sr"]
    )
    assert all((out / name).is_file() for name in report["files"])
    assert not (installation.config.storage.data_dir / "worklist-agent.db").exists()


def test_analyze_refuses_what_is_no_study(installation: Any, tmp_path: Path) -> None:
    """An empty directory, and a model process that fails, end in a sentence."""
    (tmp_path / "empty").mkdir()
    result = installation.run("analyze", str(tmp_path / "empty"), "--out", str(tmp_path / "out"))

    assert result.exit_code == FAILED
    assert "no DICOM file below it" in result.stderr


def test_analyze_tells_an_engine_that_fails(
    installation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of the models are told as ours are."""

    def fail(*_: Any, **__: Any) -> None:
        raise AnalysisError("the model is away")

    monkeypatch.setattr("agent.analysis.process.InlineEngine.analyse", fail)
    one = hospital.sample(tmp_path, "1")
    result = installation.run(
        "analyze", str(one.files[0].parent), "--out", str(tmp_path / "out"), "--pack", "test"
    )

    assert (result.exit_code, "the model is away" in result.stderr) == (FAILED, True)


def test_demo_refuses_a_used_work_directory(tmp_path: Path) -> None:
    """Nothing of another run is overwritten."""
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("x")
    result = _run("demo", "--work-dir", str(tmp_path / "used"))

    assert result.exit_code == USAGE
    assert "not empty" in result.stderr
    assert _run("demo", "--pacs", "other").exit_code == USAGE

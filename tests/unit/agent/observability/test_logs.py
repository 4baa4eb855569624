"""Logs are structured, joined by one id, and hold no patient data whatever is thrown at them."""

from __future__ import annotations

import ast
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.errors import SpoolError
from agent.observability import logs, redact
from agent.settings import LogSettings

PATIENT = "Doe^John"
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "bind"}
CONTEXT_FUNCTIONS = {"bind_contextvars", "bound_contextvars"}


@pytest.fixture
def lines() -> Iterator[Any]:
    """Log as JSON into a buffer; call to get the lines so far. Everything is put back after."""
    stream = io.StringIO()
    root = logging.getLogger()
    level, levels = root.level, {name: logging.getLogger(name).level for name in logs.QUIET}
    logs.configure(LogSettings(format="json"), stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for handler in [h for h in root.handlers if h.get_name() == logs.HANDLER]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def test_an_event_is_one_json_line_with_its_fields(lines: Any):
    """Name, level, logger, UTC time and the allowed fields."""
    structlog.get_logger("agent.assembly").info("study_assembled", study="k1", instances=412)

    (line,) = lines()
    assert (
        line["event"],
        line["level"],
        line["logger"],
    ) == ("study_assembled", "info", "agent.assembly")
    assert (line["study"], line["instances"]) == ("k1", 412)
    assert line["timestamp"].endswith("Z")


def test_a_field_outside_the_allow_list_is_withheld(lines: Any):
    """Its name stays, so that the omission is seen; its value does not."""
    structlog.get_logger().info("study_assembled", patient_name=PATIENT)

    (line,) = lines()
    assert line["patient_name"] == redact.WITHHELD


def test_an_allowed_field_holds_plain_values_only(lines: Any):
    """Objects (a dataset, a path) are withheld, long texts cut."""
    structlog.get_logger().info("x", reason=Path("/spool/Doe"), why="y" * 9999, objects=["sr", {}])

    (line,) = lines()
    assert line["reason"] == redact.WITHHELD
    assert len(line["why"]) < 600
    assert line["objects"] == ["sr", redact.WITHHELD]


def test_bound_identifiers_join_the_events_of_one_study(lines: Any):
    """What is bound around a unit of work is on each of its lines."""
    log = structlog.get_logger()
    with structlog.contextvars.bound_contextvars(study="k1"):
        log.info("study_routed")
        log.info("results_composed")

    assert [line["study"] for line in lines()] == ["k1", "k1"]


def test_a_foreign_exception_keeps_type_and_place_but_not_its_message(lines: Any):
    """Libraries quote what they choked on; causes are named too."""
    try:
        _fail(ValueError(f"bad name {PATIENT}"), KeyError(PATIENT))
    except ValueError:
        structlog.get_logger().exception("room_failed", room="analysis")

    (line,) = lines()
    assert PATIENT not in json.dumps(line)
    assert "ValueError" in line["exception"]
    assert "KeyError" in line["exception"]
    assert "test_logs.py" in line["exception"]


def test_our_own_error_keeps_its_message(lines: Any):
    """Our messages are written to be read, and hold no patient data."""
    try:
        _fail(SpoolError("the spool is full; make room"), None)
    except SpoolError:
        structlog.get_logger().exception("room_failed")

    assert "the spool is full; make room" in lines()[0]["exception"]


@pytest.mark.parametrize("library", ["pydicom", "pynetdicom.assoc", "sqlalchemy.engine", "other"])
def test_the_text_of_a_library_is_withheld(library: str, lines: Any):
    """Only who spoke and where from remains."""
    logging.getLogger(library).error("invalid value %s", PATIENT)

    (line,) = lines()
    assert PATIENT not in json.dumps(line)
    assert (library, "library_message") == (line["logger"], line["event"])


def test_a_trusted_library_may_speak(lines: Any):
    """The web server's own affairs are readable."""
    logging.getLogger("uvicorn.error").info("Shutting down")

    assert lines()[0]["event"] == "Shutting down"


def test_a_python_warning_is_withheld_too(lines: Any):
    """Pydicom warns with the value that is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn(f"Invalid value for VR PN: {PATIENT}", stacklevel=1)

    assert PATIENT not in json.dumps(lines())
    assert lines()[0]["logger"] == "py.warnings"


def test_configuring_again_replaces_the_output(lines: Any, tmp_path: Path):
    """No line twice, none in the old place."""
    logs.configure(LogSettings(format="json"), file=tmp_path / "agent.log")
    structlog.get_logger().info("agent_started")

    assert lines() == []
    assert "agent_started" in (tmp_path / "agent.log").read_text()


def test_every_field_our_code_logs_is_on_the_allow_list(repository: Path):
    """A new field is a decision: add it to `redact.FIELDS` when it cannot hold patient data."""
    unknown = {
        f"{name} ({place})"
        for package in ("agent", "db", "dicom_nodes", "inference")
        for name, place in _logged_fields(repository / package)
        if name not in redact.FIELDS
    }

    assert set() == unknown


def _fail(error: Exception, cause: Exception | None) -> None:
    raise error from cause


def _logged_fields(package: Path) -> Iterator[tuple[str, str]]:
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _is_log_call(node.func):
                for keyword in node.keywords:
                    if keyword.arg not in (None, "exc_info"):
                        yield str(keyword.arg), f"{path.name}:{node.lineno}"


def _is_log_call(called: ast.expr) -> bool:
    if not isinstance(called, ast.Attribute):
        return False
    if called.attr in CONTEXT_FUNCTIONS:
        return True
    owner = called.value
    name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
    return called.attr in LOG_METHODS and "log" in name

"""Structured logs, one line an event: JSON for machines, columns for people, never patient data.

Our own events and the messages of libraries go through the same processors; see `redact`.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import Processor

from agent.observability import redact
from agent.settings import LogSettings

HANDLER = "worklist-agent"
#: Libraries that tell too much at INFO.
QUIET = (
    "pynetdicom",
    "pydicom",
    "highdicom",
    "sqlalchemy",
    "apscheduler",
    "alembic",
    "httpx",
    "urllib3",
)
#: Their handlers print beside ours.
DETACHED = ("pynetdicom", "uvicorn", "uvicorn.error")


def configure(
    settings: LogSettings, *, file: Path | None = None, stream: TextIO | None = None
) -> None:
    """Send all log output of this process to one place. Calling it again replaces it.

    Args:
        settings: format and level; ``auto`` means columns on a terminal, else JSON.
        file: append to this file.
        stream: write here; standard error by default.
    """
    target = stream or sys.stderr
    handler = logging.FileHandler(file) if file else logging.StreamHandler(target)
    handler.set_name(HANDLER)
    columns = settings.format == "console" or (
        settings.format == "auto" and file is None and target.isatty()
    )
    handler.setFormatter(_formatter(columns=columns))
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    _install(handler, level)
    structlog.configure(
        processors=[*_common(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _common() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact.describe_exception,
        redact.redact_fields,
    ]


def _formatter(*, columns: bool) -> logging.Formatter:
    # sort_keys off: event and identifiers come in the order they were given.
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(sort_keys=False)
        if columns
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[redact.withhold_foreign_text, *_common()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def _install(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    for old in [h for h in root.handlers if h.get_name() == HANDLER]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    for name in DETACHED:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True

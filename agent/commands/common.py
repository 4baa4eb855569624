"""What the subcommands share: exit codes, reading the configuration, tables and JSON."""

from __future__ import annotations

import datetime as dt
import enum
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from agent.config import Config


class ExitCode(enum.IntEnum):
    """What a command's exit status means (documented in `worklist-agent --help`)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIG = 3
    DATABASE = 4
    PEER = 5
    INTERRUPTED = 130


#: Imported by SQLAlchemy when a URL asks for them.
DRIVERS = ("psycopg", "psycopg2")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration file. Default: $WORKLIST_AGENT_CONFIG, else ./config.toml if there.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def fail(message: str, code: ExitCode = ExitCode.FAILED) -> NoReturn:
    """Say what went wrong on standard error and leave with the documented status."""
    typer.secho(message, fg=typer.colors.RED, err=True)
    raise typer.Exit(code)


def load_config(path: Path | None) -> Config:
    """The configuration, or a clear refusal."""
    from agent import config
    from agent.errors import ConfigError

    try:
        return config.load(path)
    except ConfigError as error:
        fail(str(error), ExitCode.CONFIG)


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what cannot work into its message and the documented status."""
    from sqlalchemy.exc import SQLAlchemyError

    from agent.database import SchemaError
    from agent.errors import AgentError
    from dicom_nodes.errors import NodeError
    from inference.errors import InferenceError

    try:
        yield
    except SchemaError as error:
        fail(str(error), ExitCode.DATABASE)
    except SQLAlchemyError as error:
        fail(
            f"database: {type(error).__name__}; check database.url and that the server runs",
            ExitCode.DATABASE,
        )
    except ModuleNotFoundError as error:
        if error.name not in DRIVERS:
            raise
        fail(
            f"database: {error.name} is missing; install the 'postgresql' extra", ExitCode.DATABASE
        )
    except (AgentError, NodeError, InferenceError) as error:
        fail(str(error))


@contextmanager
def database(config: Config) -> Iterator[sessionmaker[Session]]:
    """Sessions on the configured database, which must be at this version's schema."""
    from agent import database as agent_database
    from db import engine as db_engine

    with refusals():
        engine = db_engine.create_engine(config.database_url)
        try:
            agent_database.require_newest(engine)
            yield db_engine.session_factory(engine)
        finally:
            engine.dispose()


def show(
    rows: Sequence[dict[str, Any]],
    *,
    as_json: bool,
    title: str = "",
    columns: Sequence[str] | None = None,
) -> None:
    """Print a listing as a table for people (only `columns`) or as JSON for programs (all)."""
    if as_json:
        typer.echo(json.dumps(list(rows), indent=2, default=str))
        return
    from rich.console import Console
    from rich.table import Table

    if not rows:
        typer.echo(f"{title or 'listing'}: nothing to show")
        return
    table = Table(title=title or None, header_style="bold")
    shown = list(columns or rows[0])
    for column in shown:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in shown))
    Console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, dt.datetime):
        return value.astimezone().strftime("%m-%d %H:%M:%S")
    return str(value)


Command = Callable[..., None]

"""Bring the database to the schema this version needs, and say which one it has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import migrations
from agent.errors import AgentError


class SchemaError(AgentError):
    """The database is not at the schema this version of the agent needs."""

    permanent = True


def upgrade(engine: sa.Engine) -> str:
    """Migrate to the newest schema; safe to repeat.

    Returns:
        The revision the database is at afterwards.
    """
    config = alembic_config()
    with _references_not_enforced(engine) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        _check_references(connection)
    return newest()


def current(engine: sa.Engine) -> str | None:
    """The revision the database is at; None for an empty database."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest() -> str:
    """The revision this version of the agent needs."""
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    if head is None:
        raise SchemaError("this installation holds no migrations; install it again")
    return head


def require_newest(engine: sa.Engine) -> None:
    """Refuse to run on another schema.

    Raises:
        SchemaError: says which command mends it.
    """
    found, needed = current(engine), newest()
    if found != needed:
        raise SchemaError(
            f"database schema is {found or 'empty'}, this version needs {needed}; "
            "run: worklist-agent db upgrade"
        )


@contextlib.contextmanager
def _references_not_enforced(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection that may rebuild a table which others refer to.

    SQLite alters a table by making another and dropping the first. With foreign keys enforced that
    fails as soon as there are rows, and inside a transaction the switch does nothing.
    """
    with engine.connect() as connection:
        if connection.dialect.name != "sqlite":
            yield connection
            return
        cursor = connection.connection.cursor()
        cursor.execute("PRAGMA foreign_keys=OFF")
        try:
            yield connection
        finally:
            connection.connection.cursor().execute("PRAGMA foreign_keys=ON")


def _check_references(connection: sa.Connection) -> None:
    """Look once at what was not enforced meanwhile; the caller's transaction is then undone."""
    if connection.dialect.name != "sqlite":
        return
    dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if dangling:
        table = dangling[0][0]
        raise SchemaError(
            f"{len(dangling)} rows refer to rows that are not there (the first in {table});"
            " nothing was changed: restore a backup, or file an issue"
        )


def alembic_config() -> AlembicConfig:
    """Alembic's settings, pointing at the installed `migrations` package."""
    config = AlembicConfig()
    location = Path(str(migrations.__file__)).parent
    config.set_main_option("script_location", str(location).replace("%", "%%"))
    return config

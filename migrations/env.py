"""Alembic's entry: runs the versions over the connection it is given."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

import db.models  # noqa: F401  the tables must be known before metadata is compared
from db import engine as db_engine
from db.base import Base, UtcDateTime


def run() -> None:
    """Migrate over ``attributes['connection']``, or over a new connection to the configured URL."""
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _migrate(connection)
        return
    url = context.config.get_main_option("sqlalchemy.url")
    if not url:
        raise SystemExit("no database URL; use: worklist-agent db upgrade")
    with db_engine.create_engine(url).connect() as opened:
        _migrate(opened)
        opened.commit()


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        render_item=_render_item,
    )
    with context.begin_transaction():
        context.run_migrations()


def _render_item(kind: str, item: object, _context: object) -> str | bool:
    """Write our timestamp type as the plain column it is, so that old versions need no import."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


run()

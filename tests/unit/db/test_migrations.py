"""Migrations: up from nothing, equal to the models, down again."""

from __future__ import annotations

from typing import cast

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.orm import Session, sessionmaker

from agent import database
from db.base import Base


def test_the_migrated_schema_is_what_the_models_say(sessions: sessionmaker[Session]) -> None:
    """No table, column or index differs between migrations and models."""
    bind = cast("sa.Engine", sessions.kw["bind"])
    with bind.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        differences = compare_metadata(context, Base.metadata)

    assert differences == []
    assert database.current(bind) == database.newest()


def test_upgrading_twice_changes_nothing_and_downgrading_empties(
    sessions: sessionmaker[Session],
) -> None:
    """`db upgrade` is safe to repeat; every migration can be taken back."""
    bind = cast("sa.Engine", sessions.kw["bind"])
    database.upgrade(bind)
    config = database.alembic_config()
    with bind.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")

    assert set(sa.inspect(bind).get_table_names()) <= {"alembic_version"}

"""`worklist-agent db`: create, update and name the database's schema."""

from __future__ import annotations

import typer

from agent.commands import common

app = typer.Typer(help="Create, update or inspect the database.", no_args_is_help=True)


@app.command("upgrade")
def upgrade(config: common.ConfigOption = None) -> None:
    """Create the database or bring it to this version's schema; safe to repeat."""
    from agent import database
    from db import engine as db_engine

    loaded = common.load_config(config)
    if not loaded.database.url:
        loaded.storage.data_dir.mkdir(parents=True, exist_ok=True)
    with common.refusals():
        revision = database.upgrade(db_engine.create_engine(loaded.database_url))
    typer.echo(f"database is at revision {revision}")


@app.command("current")
def current(config: common.ConfigOption = None, as_json: common.JsonOption = False) -> None:
    """Print the revision the database is at and the one this version needs."""
    from agent import database
    from db import engine as db_engine

    loaded = common.load_config(config)
    with common.refusals():
        found = database.current(db_engine.create_engine(loaded.database_url))
    needed = database.newest()
    common.show([{"found": found or "empty", "needed": needed}], as_json=as_json, title="schema")
    if found != needed:
        raise typer.Exit(common.ExitCode.DATABASE)

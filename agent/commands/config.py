"""`worklist-agent config`: show what is in force, check a file."""

from __future__ import annotations

import json

import typer

from agent.commands import common

app = typer.Typer(help="Show or check the configuration.", no_args_is_help=True)


@app.command("show")
def show(config: common.ConfigOption = None) -> None:
    """Print the configuration in force (file, environment and defaults together) as JSON."""
    loaded = common.load_config(config)
    typer.echo(json.dumps(loaded.model_dump(mode="json"), indent=2))


@app.command("check")
def check(config: common.ConfigOption = None) -> None:
    """Say whether the configuration is accepted; exit status 3 and every fault if it is not."""
    loaded = common.load_config(config)
    rules, destinations = len(loaded.routing.rules), len(loaded.destinations)
    typer.echo(
        f"configuration accepted: {len(loaded.packs)} packs, {rules} routing rules, "
        f"{destinations} destinations"
    )

"""`worklist-agent studies`: what is in the house, where it stands, and try again."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from agent.commands import common

app = typer.Typer(help="List, inspect and retry studies.", no_args_is_help=True)
COLUMNS = ("id", "state", "revision", "modalities", "instances", "priority", "reason", "last_image")
StudyArgument = Annotated[str, typer.Argument(help="Study id (number) or StudyInstanceUID.")]


@app.command("list")
def list_studies(
    state: Annotated[str | None, typer.Option(help="Only studies in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 50,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """List studies, newest first. No patient names: identifiers are on the worklist page."""
    from agent import operations
    from db.states import StudyState

    if state is not None and state not in list(StudyState):
        common.fail(
            f"no state {state!r}; states are: {', '.join(StudyState)}", common.ExitCode.USAGE
        )
    with common.database(common.load_config(config)) as sessions, sessions() as session:
        rows = operations.list_studies(session, state, limit)
    common.show(rows, as_json=as_json, title="studies", columns=COLUMNS)


@app.command("show")
def show(
    study: StudyArgument, config: common.ConfigOption = None, as_json: common.JsonOption = False
) -> None:
    """Show one study: series and why they were skipped, analyses, deliveries, timeline."""
    from agent import operations
    from agent.errors import AgentError

    with common.database(common.load_config(config)) as sessions, sessions() as session:
        try:
            details: dict[str, Any] = operations.study_details(session, study)
        except AgentError as error:
            common.fail(str(error))
    if as_json:
        typer.echo(json.dumps(details, indent=2, default=str))
        return
    common.show([details["study"]], as_json=False, title="study")
    for part in ("series", "analyses", "deliveries", "timeline"):
        common.show(details[part], as_json=False, title=part)


@app.command("retry")
def retry(
    study: StudyArgument,
    reanalyse: Annotated[
        bool,
        typer.Option(
            "--reanalyse", help="Open a new revision: run the model again, supersede the results."
        ),
    ] = False,
    config: common.ConfigOption = None,
) -> None:
    """Put a failed or skipped study back to work."""
    from agent import operations
    from agent.clock import utc_now
    from agent.errors import AgentError

    with common.database(common.load_config(config)) as sessions, sessions.begin() as session:
        try:
            where = operations.retry_study(session, study, utc_now(), reanalyse=reanalyse)
        except AgentError as error:
            common.fail(str(error))
    typer.echo(f"the study is {where} again; a running agent takes it within a second")

"""`worklist-agent deliveries`: what was sent where, what waits, what was given up."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.commands import common

app = typer.Typer(help="List and retry deliveries to PACS and archives.", no_args_is_help=True)

COLUMNS = (
    "id",
    "study",
    "destination",
    "kind",
    "state",
    "attempts",
    "sent",
    "committed",
    "seen",
    "last_error",
)


@app.command("list")
def list_deliveries(
    state: Annotated[
        str | None, typer.Option(help="Only these: pending, delivered, dead, shadow, ...")
    ] = None,
    destination: Annotated[str | None, typer.Option(help="Only to this destination.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 50,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """List deliveries, newest first, with attempts and the last error."""
    from agent import operations
    from db.states import DeliveryState

    if state is not None and state not in list(DeliveryState):
        common.fail(
            f"no state {state!r}; states are: {', '.join(DeliveryState)}", common.ExitCode.USAGE
        )
    with common.database(common.load_config(config)) as sessions, sessions() as session:
        rows = operations.list_deliveries(session, state, destination, limit)
    common.show(rows, as_json=as_json, title="deliveries", columns=COLUMNS)


@app.command("retry")
def retry(
    delivery: Annotated[int | None, typer.Argument(help="Delivery id from the listing.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead letters.")] = False,
    destination: Annotated[
        str | None, typer.Option(help="With --dead: only to this destination.")
    ] = None,
    config: common.ConfigOption = None,
) -> None:
    """Send a delivery again now, or all dead letters (--dead)."""
    from agent.clock import utc_now
    from agent.delivery import outbox
    from agent.errors import AgentError

    if (delivery is None) is not dead:
        common.fail("give a delivery id, or --dead for all dead letters", common.ExitCode.USAGE)
    with common.database(common.load_config(config)) as sessions, sessions.begin() as session:
        try:
            if delivery is not None:
                outbox.retry_delivery(session, delivery, utc_now())
                count = 1
            else:
                count = outbox.retry_dead(session, utc_now(), destination=destination)
        except AgentError as error:
            common.fail(str(error))
    typer.echo(f"{count} deliveries are due again; a running agent sends them within seconds")


@app.command("preview")
def preview(
    study: Annotated[str, typer.Argument(help="Study id or Study Instance UID.")],
    destination: Annotated[
        str, typer.Option(help="Name of a destination that is told: hl7, ups, webhook, fhir ...")
    ],
    kind: Annotated[str, typer.Option(help="priority or report.")] = "priority",
    config: common.ConfigOption = None,
) -> None:
    """Print what a destination would be told about a study. Sends nothing.

    The message may hold the patient's name.
    """
    from agent.delivery import previews
    from agent.delivery.announcements import Kind
    from agent.settings import MESSAGE_DESTINATIONS

    if kind not in list(Kind):
        common.fail(f"no kind {kind!r}; kinds are: {', '.join(Kind)}", common.ExitCode.USAGE)
    loaded = common.load_config(config)
    told = {d.name: d for d in loaded.destinations if d.kind in MESSAGE_DESTINATIONS}
    if destination not in told:
        common.fail(
            f"no destination {destination!r} that is told; configured: {', '.join(told) or 'none'}",
            common.ExitCode.USAGE,
        )
    with common.database(loaded) as sessions, sessions() as session:
        text = previews.preview(
            session,
            study,
            told[destination],
            Kind(kind),
            unsupported=loaded.report.push_unsupported,
        )
    typer.echo(text)

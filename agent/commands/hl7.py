"""`worklist-agent hl7`: what would be told, what the RIS sent, and what waits for a person."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.commands import common

app = typer.Typer(help="HL7: preview messages, look after received ones.", no_args_is_help=True)

COLUMNS = ("id", "received_at", "peer", "type", "control_id", "state", "answer", "reason")


@app.command("preview")
def preview(
    study: Annotated[str, typer.Argument(help="Study id or Study Instance UID.")],
    destination: Annotated[str, typer.Option(help="Name of an hl7 destination.")],
    kind: Annotated[str, typer.Option(help="priority or report.")] = "report",
    config: common.ConfigOption = None,
) -> None:
    """Print the message that a destination would be sent about a study. Sends nothing.

    The message holds the patient's name.
    """
    from agent.delivery import previews
    from agent.delivery.announcements import Kind

    if kind not in list(Kind):
        common.fail(f"no kind {kind!r}; kinds are: {', '.join(Kind)}", common.ExitCode.USAGE)
    loaded = common.load_config(config)
    wanted = next((d for d in loaded.destinations if d.name == destination), None)
    if wanted is None or wanted.kind != "hl7":
        names = ", ".join(d.name for d in loaded.destinations if d.kind == "hl7") or "none"
        common.fail(
            f"no hl7 destination {destination!r}; configured: {names}", common.ExitCode.USAGE
        )
    with common.database(loaded) as sessions, sessions() as session:
        unsupported = loaded.report.push_unsupported
        text = previews.preview(session, study, wanted, Kind(kind), unsupported=unsupported)
    typer.echo(text)


@app.command("messages")
def messages(
    state: Annotated[
        str | None, typer.Option(help="Only these: received, applied, ignored, quarantined.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 50,
    content: Annotated[
        int | None, typer.Option("--content", help="Print this message; it names a patient.")
    ] = None,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """List received messages, without their content."""
    from agent.orders import inbox
    from db.queries.hl7_messages import MessageState

    if state is not None and state not in list(MessageState):
        allowed = ", ".join(MessageState)
        common.fail(f"no state {state!r}; states are: {allowed}", common.ExitCode.USAGE)
    with common.database(common.load_config(config)) as sessions, sessions() as session:
        if content is not None:
            typer.echo(inbox.content(session, content))
            return
        rows = inbox.listing(session, state, limit)
    common.show(rows, as_json=as_json, title="hl7 messages", columns=COLUMNS)


@app.command("requeue")
def requeue(
    message: Annotated[int | None, typer.Argument(help="Message id from the listing.")] = None,
    quarantined: Annotated[
        bool, typer.Option("--quarantined", help="All that are quarantined.")
    ] = False,
    config: common.ConfigOption = None,
) -> None:
    """Have quarantined messages read again, after the field mapping was corrected."""
    from agent.orders import inbox

    if (message is None) is not quarantined:
        common.fail("give a message id, or --quarantined", common.ExitCode.USAGE)
    with common.database(common.load_config(config)) as sessions, sessions.begin() as session:
        count = inbox.requeue(session, message)
    typer.echo(f"{count} messages are taken up again; a running agent reads them within seconds")

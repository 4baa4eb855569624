"""`worklist-agent`: the one command. Each subcommand lives in `agent/commands/`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from agent import __version__
from agent.commands import (
    accounts,
    analyze,
    audit,
    config,
    database,
    deliveries,
    demo,
    doctor,
    hl7,
    packs,
    prima,
    rules,
    send,
    serve,
    studies,
    train,
    train_more,
    vllm,
)
from agent.commands.common import ExitCode

HELP = """A passive DICOM node beside a PACS. It receives head CT and brain MRI studies, reads them
with research models, writes DICOM SR and SEG back and moves urgent studies up the worklist.

RESEARCH USE ONLY: results are AI generated and not reviewed by a physician.

First steps:

  worklist-agent demo             a synthetic hospital, everything on this machine

  worklist-agent doctor           what is missing before the agent can serve

  worklist-agent db upgrade       create or update the database

  worklist-agent serve            run the agent (stop with Ctrl-C or SIGTERM)

Exit status: 0 done, 1 failed or problems found, 2 wrong usage, 3 configuration refused,
4 database not usable, 5 a peer is unreachable or refused, 130 interrupted."""

app = typer.Typer(
    name="worklist-agent", help=HELP, no_args_is_help=True, pretty_exceptions_enable=False
)
app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("analyze")(analyze.analyze)
app.command("send")(send.send)
app.command("doctor")(doctor.doctor)
app.command("evaluate")(train.evaluate)
app.add_typer(train_more.app, name="train")
app.add_typer(studies.app, name="studies")
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(hl7.app, name="hl7")
app.add_typer(packs.app, name="packs")
app.add_typer(prima.app, name="prima")
app.add_typer(accounts.app, name="accounts")
app.add_typer(audit.app, name="audit")
app.add_typer(rules.app, name="rules")
app.add_typer(database.app, name="db")
app.add_typer(vllm.app, name="vllm")
app.add_typer(config.app, name="config")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"worklist-agent {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _show_version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """See HELP; the callback carries the options of the command itself."""
    from agent.observability import logs
    from agent.settings import LogSettings

    # Short commands tell faults on standard error; serve and demo replace this.
    logs.configure(LogSettings(format="console", level="warning"))


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()

"""`worklist-agent demo`: a synthetic hospital on this machine."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands import common
from agent.commands.serve import stop_on_signals

if TYPE_CHECKING:
    from agent.demo.run import Demo, Progress

NOTICE = (
    "DEMONSTRATION on synthetic studies with a model trained on synthetic studies: "
    "research use only, not for clinical use."
)


def demo(
    exit_when_done: Annotated[
        bool, typer.Option("--exit", help="Stop when every study is in the PACS.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the table to this JSON file.")
    ] = None,
    work_dir: Annotated[
        Path | None,
        typer.Option(help="Where everything is made; new or empty. Default: var/demo-<time>."),
    ] = None,
    pacs: Annotated[
        str, typer.Option(help="embedded, or orthanc if it is installed.")
    ] = "embedded",
    seed: Annotated[int, typer.Option(help="Another seed, other patients' anatomy.")] = 0,
    studies: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many studies of the set.")
    ] = None,
    web_port: Annotated[int, typer.Option(help="Of the worklist page; taken: any free.")] = 8080,
    dicom_port: Annotated[int, typer.Option(help="Of the agent; taken: any free.")] = 11112,
) -> None:
    """Run a synthetic hospital against the agent over real DICOM associations.

    Scanners send head CT and brain MR studies, normal and with synthetic pathology, in random
    order; the agent reads them, sends its results to a PACS and orders the worklist. Ends with a
    table and leaves the worklist page open until Ctrl-C.
    """
    if pacs not in ("embedded", "orthanc"):
        common.fail("--pacs is embedded or orthanc", common.ExitCode.USAGE)
    directory = _work_dir(work_dir)
    typer.secho(NOTICE, fg=typer.colors.YELLOW, err=True)
    typer.echo(f"work directory: {directory}", err=True)
    running = _start(directory, seed, pacs == "orthanc", web_port, dicom_port, studies)
    stop = stop_on_signals()
    try:
        typer.echo(f"worklist page: {running.page}", err=True)
        _wait(running, stop)
        if stop.is_set():
            raise typer.Exit(common.ExitCode.INTERRUPTED)
        rows = running.rows()
        _report(rows, directory, json_file)
        if not exit_when_done:
            typer.echo(f"The worklist page stays open at {running.page} until Ctrl-C.", err=True)
            stop.wait()
    finally:
        running.stop()
    if any(row["state"] != "done" for row in rows):
        common.fail("some studies did not reach the PACS; see the table")


def _work_dir(given: Path | None) -> Path:
    import datetime as dt

    stamp = dt.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    directory = (given or Path("var") / f"demo-{stamp}").absolute()
    if directory.exists() and any(directory.iterdir()):
        common.fail(
            f"{directory} is not empty; give a new --work-dir, or empty it", common.ExitCode.USAGE
        )
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _start(
    directory: Path, seed: int, orthanc: bool, web_port: int, dicom_port: int, count: int | None
) -> Demo:
    from agent.observability import logs
    from agent.settings import LogSettings

    try:
        from agent.demo import run, settings
    except ImportError as error:
        common.fail(f"the demo needs the 'demo' extra ({error.name} is missing): make setup")
    logs.configure(LogSettings(format="json", level="info"), file=directory / run.LOG_FILE)
    with common.refusals():
        return run.start(
            directory,
            seed=seed,
            orthanc=orthanc,
            web_port=settings.free_port(web_port),
            dicom_port=settings.free_port(dicom_port),
            count=count,
        )


def _wait(running: Demo, stop: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    from agent.errors import AgentError

    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console) as bars:
        tasks = {name: bars.add_task(name) for name in ("sent", "analysed", "delivered")}
        plain = not console.is_terminal
        last: Progress | None = None

        def report(progress: Progress) -> None:
            nonlocal last
            if stop.is_set():
                raise KeyboardInterrupt
            for name, task in tasks.items():
                bars.update(task, completed=getattr(progress, name), total=progress.total)
            if plain and progress != last:
                typer.echo(
                    f"of {progress.total} studies: {progress.sent} sent, "
                    f"{progress.analysed} analysed, {progress.delivered} in the PACS",
                    err=True,
                )
            last = progress

        try:
            running.wait(report)
        except KeyboardInterrupt:
            return
        except AgentError as error:
            common.fail(str(error))


def _report(rows: list[dict[str, Any]], directory: Path, json_file: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What the agent made of it (in reading order)", header_style="bold")
    for name in ("study", "findings above threshold", "priority", "arrived → read", "s to PACS"):
        table.add_column(name)
    for row in rows:
        found = ", ".join(f"{f['display']} {f['probability']:.0%}" for f in row["findings"])
        seconds = row["seconds_to_result"]
        table.add_row(
            row["study"],
            found or ("none" if row["status"] == "succeeded" else row["reason"]),
            row["priority"],
            f"{row['arrival_rank']} → {row['reading_rank']}",
            "" if seconds is None else f"{seconds:.1f}",
        )
    Console().print(table)
    typer.echo(f"everything the demo made lies in {directory}")
    if json_file is not None:
        content = {"notice": NOTICE, "work_dir": str(directory), "studies": rows}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        typer.echo(f"table written to {json_file}")

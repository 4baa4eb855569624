"""`worklist-agent rules`: which rule would take a study, and what they would have taken lately."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import common

if TYPE_CHECKING:
    from agent.routing.trial import Trial

app = typer.Typer(help="Try out routing rules, packs and channels.", no_args_is_help=True)


@app.command("test")
def try_rules(
    target: Annotated[str, typer.Argument(help="DICOM file, Study Instance UID or study id.")],
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Say which rule, packs, series and channels would apply. Sends and stores nothing."""
    from agent import operations
    from agent.routing import tester
    from agent.routing.book import RuleBook

    loaded = common.load_config(config)
    book = RuleBook.of(loaded)
    if Path(target).is_file():
        with common.refusals():
            trial = tester.of_path(Path(target), book)
    else:
        with common.database(loaded) as sessions, sessions() as session:
            trial = tester.of_study(session, operations.find_study(session, target), book)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(trial), indent=2, default=sorted))
        return
    _show(trial)


@app.command("history")
def history(
    days: Annotated[float, typer.Option(min=0, help="Studies of the last so many days.")] = 7.0,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """What the rules of now would have matched, and which studies they would treat otherwise."""
    from agent.clock import utc_now
    from agent.routing import tester
    from agent.routing.book import RuleBook

    loaded = common.load_config(config)
    with common.database(loaded) as sessions, sessions() as session:
        seen = tester.history(session, RuleBook.of(loaded), utc_now(), days)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(seen), indent=2, default=str))
        return
    rows = [{"rule": r, "outcome": o, "studies": n} for r, o, n in seen.counts]
    common.show(rows, as_json=False, title=f"{seen.studies} studies")
    changed = [dataclasses.asdict(c) for c in seen.changed]
    columns = ("study_id", "received", "then", "now")
    title = f"{seen.changed_count} would be treated otherwise"
    common.show(changed, as_json=False, title=title, columns=columns)


def _show(trial: Trial) -> None:
    route = trial.route
    read = f"read by {', '.join(route.packs)}" if route.packs else f"not read: {route.reason}"
    typer.secho(f"rule {route.rule or 'none'}: {read}", bold=True)
    rules = [
        {"rule": r.name, "matches": "yes" if r.matches else "no", "outcome": r.outcome}
        for r in trial.rules
    ]
    series = [{**dataclasses.asdict(s), "reason": s.reason or "eligible"} for s in trial.series]
    channels = [
        {
            "destination": c.destination,
            "kind": c.kind,
            "sends": ", ".join(c.sends),
            "now": c.withheld or "would be sent",
        }
        for c in trial.channels
    ]
    common.show(rules, as_json=False, title="rules")
    common.show(series, as_json=False, title="series")
    common.show(channels, as_json=False, title="channels")
    for override in trial.overrides:
        typer.echo(f"site rule {override}")
    if trial.floor:
        typer.echo(f"ordered as {trial.facts.ordered_priority}: never below {trial.floor}")
    if trial.provisional:
        typer.echo("gets a provisional priority from its first usable series")
    for note in trial.notes:
        typer.echo(note)

"""`worklist-agent doctor`: what is missing before the agent can serve."""

from __future__ import annotations

import dataclasses

import typer

from agent.commands import common

COLORS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "problem": typer.colors.RED}


def doctor(config: common.ConfigOption = None, as_json: common.JsonOption = False) -> None:
    """Check configuration, disk, database, ports, packs, GPU and every peer; say what to mend.

    Exit status 1 if there is a problem; warnings do not count.
    """
    from agent import doctor as examination

    loaded = common.load_config(config)
    checks = []
    for check in examination.examine(loaded):
        checks.append(check)
        if not as_json:
            typer.secho(f"{check.verdict:>8}", fg=COLORS[check.verdict], nl=False)
            typer.echo(f"  {check.name}: {check.finding}")
            if check.mend and check.verdict != "ok":
                typer.echo(f"          mend: {check.mend}")
    if as_json:
        common.show([dataclasses.asdict(c) for c in checks], as_json=True)
    if any(c.verdict is examination.Verdict.PROBLEM for c in checks):
        raise typer.Exit(common.ExitCode.FAILED)

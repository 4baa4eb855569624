"""`worklist-agent packs`: which models are here, what they say of themselves, are they whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.commands import common

app = typer.Typer(help="List, show and verify model packs.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="Pack name as in [packs.NAME], or a directory.")]


@app.command("list")
def list_packs(config: common.ConfigOption = None, as_json: common.JsonOption = False) -> None:
    """List the configured packs."""
    from inference import packs
    from inference.errors import InferenceError

    rows = []
    for name, settings in common.load_config(config).packs.items():
        row: dict[str, Any] = {"pack": name, "shadow": settings.shadow, "path": str(settings.path)}
        try:
            manifest = packs.load_manifest(settings.path)
        except InferenceError as error:
            rows.append({**row, "version": "", "family": "", "licence": "", "state": str(error)})
            continue
        rows.append(
            {
                **row,
                "version": manifest.version,
                "family": manifest.family,
                "licence": manifest.licence,
                "state": "demonstration" if manifest.demonstration else "research use only",
            }
        )
    common.show(rows, as_json=as_json, title="packs")


@app.command("show")
def show(
    name: NameArgument, config: common.ConfigOption = None, as_json: common.JsonOption = False
) -> None:
    """Show a pack's labels, thresholds, acuity classes and codes."""
    from inference import packs
    from inference.errors import InferenceError

    try:
        manifest = packs.load_manifest(_directory(name, config))
    except InferenceError as error:
        common.fail(str(error))
    labels = [
        {
            "head": head.name,
            "modality": head.modality,
            "label": label.id,
            "display": label.display,
            "acuity": str(label.acuity),
            "threshold": label.threshold,
            "code": f"{label.code.value} {label.code.scheme}",
        }
        for head in manifest.heads
        for label in head.labels
    ]
    about = {
        "name": manifest.name,
        "version": manifest.version,
        "title": manifest.title,
        "licence": manifest.licence,
        "notice": manifest.notice,
        "digest": manifest.digest,
    }
    if as_json:
        typer.echo(json.dumps({**about, "labels": labels}, indent=2))
        return
    for key, value in about.items():
        typer.echo(f"{key:>8}: {value}")
    common.show(labels, as_json=False, title="labels")


@app.command("verify")
def verify(
    name: Annotated[str | None, typer.Argument(help="One pack; default: all configured.")] = None,
    config: common.ConfigOption = None,
) -> None:
    """Compare every file of a pack with its manifest (SHA-256); exit status 1 if one differs."""
    from inference import packs
    from inference.errors import InferenceError

    names = [name] if name else list(common.load_config(config).packs)
    broken = False
    for one in names:
        try:
            packs.verify(_directory(one, config))
            typer.echo(f"{one}: every file is as its manifest says")
        except InferenceError as error:
            broken = True
            typer.secho(f"{one}: {error}", fg=typer.colors.RED, err=True)
    if broken:
        raise typer.Exit(common.ExitCode.FAILED)


def _directory(name: str, config: Path | None) -> Path:
    configured = common.load_config(config).packs
    if name in configured:
        return configured[name].path
    if (Path(name) / "pack.toml").is_file():
        return Path(name)
    known = ", ".join(sorted(configured)) or "none"
    common.fail(f"no pack {name!r} is configured and it is no pack directory; known: {known}")

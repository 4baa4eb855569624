"""`worklist-agent packs`: which models are here, what they say of themselves, are they whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.commands import common, packs_prima, packs_report

app = typer.Typer(help="List, show and verify model packs.", no_args_is_help=True)
importers = typer.Typer(help="Turn an official download into a pack.", no_args_is_help=True)
app.add_typer(importers, name="import")
importers.command("neurovfm-vlm")(packs_report.import_findings)
importers.command("prima")(packs_prima.import_prima)
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


@importers.command("neurovfm")
def import_pack(
    encoder: Annotated[
        str, typer.Option(help="Official encoder: a directory, or a Hugging Face id.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the new pack.")],
    name: Annotated[str, typer.Option(help="Name of the new pack.")],
    ct: Annotated[str | None, typer.Option(help="Official CT head: directory or id.")] = None,
    mri: Annotated[str | None, typer.Option(help="Official MRI head: directory or id.")] = None,
    version: Annotated[str, typer.Option(help="Version of the new pack.")] = "1.0.0",
    revision: Annotated[str | None, typer.Option(help="Commit of the Hugging Face ids.")] = None,
) -> None:
    """Turn an official download into a pack: safetensors, labels, hashes, licence and notice.

    Every weight is loaded strictly first; a missing, unexpected or mis-shaped one is named.
    """
    from inference.errors import InferenceError

    heads = {m: h for m, h in (("CT", ct), ("MR", mri)) if h is not None}
    if not heads:
        common.fail(
            "give --ct, --mri or both: a pack without a head finds nothing", common.ExitCode.USAGE
        )
    from inference.neurovfm import official

    try:
        manifest = official.import_official(
            encoder, heads, out, official.Identity(name, version), revision
        )
    except InferenceError as error:
        common.fail(str(error))
    labels = ", ".join(f"{len(head.labels)} {head.modality}" for head in manifest.heads)
    typer.echo(f"{out}: pack {manifest.name} {manifest.version}, {labels} labels")
    typer.secho(f"{manifest.licence}. {manifest.notice}", fg=typer.colors.YELLOW)


@app.command("parity")
def parity(
    golden: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Directory of golden data.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write the report (Markdown) here.")] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Measure this version against numbers of the official code; exit status 1 if one is off."""
    from inference import parity as measurement

    rows = measurement.measure(golden)
    if out is not None:
        measurement.write_report(rows, measurement.chapters(), out)
    listing = [
        {
            "case": row.case,
            "subject": row.subject,
            "quantity": row.quantity,
            "difference": f"{row.difference:.1e}",
            "tolerance": row.tolerance,
            "within": row.within,
        }
        for row in rows
    ]
    common.show(listing, as_json=as_json, title="parity")
    outside = sum(not row.within for row in rows)
    typer.echo(f"{len(rows)} comparisons, {outside} outside their tolerance", err=True)
    if outside:
        raise typer.Exit(common.ExitCode.FAILED)


def _directory(name: str, config: Path | None) -> Path:
    configured = common.load_config(config).packs
    if name in configured:
        return configured[name].path
    if (Path(name) / "pack.toml").is_file():
        return Path(name)
    known = ", ".join(sorted(configured)) or "none"
    common.fail(f"no pack {name!r} is configured and it is no pack directory; known: {known}")

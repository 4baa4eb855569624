"""`worklist-agent send`: C-STORE a directory of DICOM files to any node."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from agent.commands import common


def send(
    directory: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Directory, searched recursively.")
    ],
    host: Annotated[str, typer.Option(help="Where to send.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Default: the port of this configuration's node."),
    ] = None,
    called: Annotated[
        str | None, typer.Option(help="Called AE title. Default: this configuration's node.")
    ] = None,
    calling: Annotated[str, typer.Option(help="Calling AE title.")] = "WLSEND",
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Send every DICOM file below DIRECTORY by C-STORE, with progress and each refusal named."""
    from dicom_nodes.answers import StoreOutcome
    from dicom_nodes.errors import NodeError
    from dicom_nodes.node import Node
    from dicom_nodes.scu import store

    loaded = common.load_config(config)
    node = Node(
        ae_title=called or loaded.dicom.ae_title,
        host=host,
        port=port or loaded.dicom.port,
        calling_ae=calling,
    )
    sent = 0

    def progress(_outcome: StoreOutcome) -> None:
        nonlocal sent
        sent += 1
        if sys.stderr.isatty() and not as_json:
            typer.echo(f"\r{sent} instances sent", nl=False, err=True)

    try:
        outcomes = store.send_directory(node, directory, progress)
    except NodeError as error:
        common.fail(str(error), common.ExitCode.PEER)
    if sys.stderr.isatty() and not as_json:
        typer.echo(err=True)
    refused = [o for o in outcomes if not o.ok]
    summary = {"sent": len(outcomes) - len(refused), "refused": len(refused)}
    typer.echo(json.dumps(summary) if as_json else f"{summary['sent']} stored")
    if refused:
        for outcome in refused[:20]:
            typer.secho(f"{outcome.sop_instance_uid}: {outcome.error}", fg="red", err=True)
        common.fail(f"{len(refused)} instances were refused", common.ExitCode.PEER)

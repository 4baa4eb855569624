"""`worklist-agent analyze`: a directory in, findings and DICOM objects out, nothing sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from agent.commands import common


def analyze(
    study_dir: Annotated[
        Path,
        typer.Argument(exists=True, file_okay=False, help="Directory with one DICOM study."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write; made if missing.")],
    pack: Annotated[
        str | None,
        typer.Option(
            help="Configured pack, or a pack directory. Default: the routing rules choose."
        ),
    ] = None,
    config: common.ConfigOption = None,
    as_json: common.JsonOption = False,
) -> None:
    """Analyse STUDY_DIR offline: writes findings.json, SR, SEG, maps and the summary page to --out.

    Needs no database and opens no connection. Research use only.
    """
    from agent import installation, offline
    from agent.analysis.process import InlineEngine
    from agent.clock import utc_now
    from agent.errors import AgentError
    from inference.errors import InferenceError

    loaded = common.load_config(config)
    if pack is not None and pack not in loaded.packs and (Path(pack) / "pack.toml").is_file():
        from agent.settings import PackSettings

        given = {**loaded.packs, pack: PackSettings(path=Path(pack))}
        loaded = loaded.model_copy(update={"packs": given})
    try:
        found = offline.read_directory(study_dir)
        chosen = offline.choose_pack(found, loaded, pack)
        typer.echo(f"{len(found.study.series)} series, pack {chosen}: analysing ...", err=True)
        engine = InlineEngine({chosen: loaded.packs[chosen].path}, loaded.inference.device)
        identity = installation.load(loaded.storage.data_dir, loaded.results.institution)
        report = offline.analyse(found, loaded, chosen, engine, identity, out, utc_now)
    except (AgentError, InferenceError) as error:
        common.fail(str(error))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    _show(report, out)


def _show(report: dict[str, object], out: Path) -> None:
    findings = report["findings"]
    priority = report["priority"]
    assert isinstance(findings, list)  # noqa: S101  narrowing for the type checker
    assert isinstance(priority, dict)  # noqa: S101
    rows = [
        {"finding": f["display"], "probability": f["probability"], "threshold": f["threshold"]}
        for f in findings
        if f["present"]
    ]
    common.show(rows, as_json=False, title="findings above threshold")
    typer.echo(f"status {report['status']} {report['reason']}".rstrip())
    typer.echo(f"priority {priority['level']}: {priority['reason']}")
    typer.echo(f"written to {out}")
    typer.secho(str(report["notice"]), fg=typer.colors.YELLOW)

"""`worklist-agent prima`: the published Prima pipeline from its own configuration files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands import common

if TYPE_CHECKING:
    from inference.prima.pipeline import Outcome

app = typer.Typer(help="Run the published Prima pipeline offline.", no_args_is_help=True)


@app.command("run")
def run(
    config: Annotated[
        Path,
        typer.Option(
            "--config",
            exists=True,
            dir_okay=False,
            help="The pipeline's own configuration file, YAML or JSON.",
        ),
    ],
    study_dir: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Another study than the file names."),
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Another place for the predictions.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N, instead of the file's.")
    ] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Read one study with Prima: writes {study}_predictions.json as the published pipeline does.

    The configuration file is that of the published repository. It names study_dir (one
    sub-directory per series), output_dir, study_description (text that the model reads too),
    tokenizer_model_config (a file with vqvae_config and its ckpt_path) and prima_model_config (a
    file with full_model_ckpt; or with clip_ckpt, diagnosis_heads_json, referral_heads_json and
    priority_head_ckpt). Both may stand inside. Relative paths are tried beside the file that
    holds them, then in the working directory. docs/prima.md has an example.

    Numbers are the published ones; a series that cannot be read is skipped and named. No code in
    a checkpoint is run. To read studies as the agent does, with results in DICOM, import the
    checkpoint as a pack: worklist-agent packs import prima.
    """
    from inference.errors import InferenceError
    from inference.prima import pipeline
    from inference.prima.config import read_config

    def tell(text: str) -> None:
        typer.echo(text, err=True)

    try:
        given = read_config(config, study_dir)
        asked = dataclasses.replace(
            given,
            output_dir=output_dir or given.output_dir,
            device=device or given.device,
        )
        outcome = pipeline.run(asked, tell)
    except (InferenceError, OSError) as error:
        common.fail(str(error))
    if as_json:
        typer.echo(json.dumps(outcome.predictions, indent=2))
        return
    _show(outcome)


def _show(outcome: Outcome) -> None:
    result = outcome.predictions
    rows: list[dict[str, Any]] = [
        {"kind": kind, "label": label, "score": score}
        for kind in ("diagnosis", "referral")
        for label, (score,) in sorted(result[kind].items(), key=lambda item: -item[1][0])
        if score >= 0
    ]
    common.show(rows, as_json=False, title="at or above threshold")
    levels = result["priority"]
    typer.echo(f"priority: {max(levels, key=lambda level: levels[level][0])}")
    for item in outcome.study.skipped:
        typer.echo(f"skipped {item.series}: {item.reason}")
    typer.echo(f"{len(outcome.study.series)} series read, written to {outcome.file}")
    typer.secho(
        "Research use only: AI generated, not reviewed by a physician.", fg=typer.colors.YELLOW
    )

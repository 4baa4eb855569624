"""`worklist-agent packs import neurovfm-vlm`: an official findings directory becomes a pack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import common

if TYPE_CHECKING:
    from inference.report.prompt import PromptStyle

PROMPT_FILE = "prompt.json"


def import_findings(
    source: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="Directory with config.json and language_model/."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the new pack.")],
    name: Annotated[str, typer.Option(help="Name of the new pack.")],
    prompt: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="JSON file with the wording it was trained with."
        ),
    ] = None,
    own_prompt: Annotated[
        bool, typer.Option("--own-prompt", help="Use our own wording where none is given.")
    ] = False,
    version: Annotated[str, typer.Option(help="Version of the new pack.")] = "1.0.0",
    title: Annotated[
        str, typer.Option(help="Title of the new pack.")
    ] = "NeuroVFM findings, official weights",
    empty_turn: Annotated[
        bool, typer.Option(help="End the prompt with a closed assistant turn, as the reference.")
    ] = True,
    rounded_buffers: Annotated[
        bool, typer.Option(help="Round rotary and position tables to bfloat16, as the reference.")
    ] = True,
) -> None:
    """Turn an official findings directory (encoder, connector, language model) into a pack.

    Every weight is loaded strictly first; a missing, unexpected or mis-shaped one is named.
    """
    from inference.errors import InferenceError
    from inference.neurovfm.official import Identity
    from inference.report import importing

    try:
        style = _style(source, prompt, own=own_prompt)
        manifest = importing.import_findings_model(
            source,
            out,
            Identity(name, version, title),
            style,
            importing.Quirks(empty_assistant_turn=empty_turn, rounded_buffers=rounded_buffers),
        )
    except InferenceError as error:
        common.fail(str(error))
    typer.echo(f"{out}: pack {manifest.name} {manifest.version}, drafts findings")
    typer.secho(f"{manifest.licence}. {manifest.notice}", fg=typer.colors.YELLOW)


def _style(source: Path, prompt: Path | None, *, own: bool) -> PromptStyle:
    from inference.report.official import read_system_prompt
    from inference.report.prompt import PromptStyle

    file = prompt or source / PROMPT_FILE
    if file.is_file():
        return PromptStyle.read(file)
    if not own:
        common.fail(
            "the wording of the prompt is part of what a findings model learned and is not in its "
            "directory: give --prompt FILE (see docs/report-drafts.md), or --own-prompt to try "
            "ours",
            common.ExitCode.USAGE,
        )
    style = PromptStyle.default()
    system = read_system_prompt(source)
    return replace(style, system=system) if system else style

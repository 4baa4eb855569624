"""`worklist-agent packs import prima`: the published Prima checkpoint becomes a pack, safely."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import common

if TYPE_CHECKING:
    from inference.prima.config import Components

HeadsOption = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Heads JSON; its thresholds win."),
]


def import_prima(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="The full model, or the CLIP model with --priority."
        ),
    ],
    tokenizer: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="The tokenizer's checkpoint.")
    ],
    tokenizer_config: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="JSON with its vqvae_config.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the new pack.")],
    name: Annotated[str, typer.Option(help="Name of the new pack.")],
    diagnosis_heads: HeadsOption = None,
    referral_heads: HeadsOption = None,
    priority: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Priority head, where heads are apart."),
    ] = None,
    version: Annotated[str, typer.Option(help="Version of the new pack.")] = "1.0.0",
    licence: Annotated[
        str | None, typer.Option(help="Licence of the files, where not CC-BY-NC-SA-4.0.")
    ] = None,
) -> None:
    """Turn the published Prima checkpoint into a pack, without running what it holds.

    The file is a pickle of a whole module. It is read by a machine that knows tensors and the
    names of Prima's classes only; anything else in it is refused by name. Every weight is loaded
    strictly; a missing, unexpected or mis-shaped one is named.
    """
    from inference.errors import InferenceError
    from inference.prima import importing

    try:
        parts = (
            None
            if priority is None
            else _parts(checkpoint, diagnosis_heads, referral_heads, priority)
        )
        sources = importing.Sources(
            model=parts or checkpoint,
            tokenizer=tokenizer,
            tokenizer_config=tokenizer_config,
            diagnosis_heads=None if parts else diagnosis_heads,
            referral_heads=None if parts else referral_heads,
        )
        identity = importing.Identity(name, version, licence=licence or importing.LICENCE)
        manifest = importing.import_official(sources, out, identity)
        doubts = importing.doubts(sources)
    except InferenceError as error:
        common.fail(str(error))
    heads = ", ".join(
        f"{len(head.labels or head.levels)} {head.kind} outputs" for head in manifest.heads
    )
    typer.echo(f"{out}: pack {manifest.name} {manifest.version}, {heads}")
    for doubt in doubts:
        typer.secho(f"warning: {doubt}", fg=typer.colors.RED, err=True)
    typer.secho(f"{manifest.licence}. {manifest.notice}", fg=typer.colors.YELLOW)


def _parts(
    clip: Path, diagnosis_heads: Path | None, referral_heads: Path | None, priority: Path
) -> Components:
    from inference.prima.config import Components, read_heads

    if diagnosis_heads is None or referral_heads is None:
        common.fail(
            "a model in parts needs --diagnosis-heads, --referral-heads and --priority",
            common.ExitCode.USAGE,
        )
    return Components(clip, read_heads(diagnosis_heads), read_heads(referral_heads), priority)

"""`worklist-agent train prima-...` and `train instruction`: Prima's stages, and tuned drafts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from agent.commands import common
from agent.commands.train import (
    CacheArgument,
    Prospective,
    RunConfig,
    SplitSeed,
    TableArgument,
    ValidationShare,
    app,
    bar,
    divide,
    mended,
    tell_progress,
)

#: The same application as train.py's, with more commands.
__all__ = ["app"]

OutArgument = Annotated[Path, typer.Argument(help="Folder of the run.")]
ModelArgument = Annotated[Path, typer.Argument(help="Folder of the run of prima-clip.")]
TokenizerArgument = Annotated[Path, typer.Argument(help="Folder of the run of prima-vqvae.")]
NameOption = Annotated[str, typer.Option(help="Name of the pack.")]
VersionOption = Annotated[str, typer.Option(help="Version of the pack.")]


@app.command("prima-blocks")
def prima_blocks(
    table: TableArgument,
    folder: CacheArgument,
    per_series: Annotated[int, typer.Option(min=1, help="Blocks kept of a series.")] = 400,
) -> None:
    """Cut blocks of voxels from every MR study, for Prima's tokenizer; a stopped run goes on."""
    with mended():
        from training.data.table import read_table
        from training.prima.cache import cache_blocks

        rows = [row for row in read_table(table) if row.modality in ("", "MR")]
        with bar("cutting", len(rows)) as progress:
            report = cache_blocks(rows, folder, per_series, progress)
    typer.echo(f"{report.stored} studies stored, {report.known} were there")
    _tell_refused(report.refused)


@app.command("prima-vqvae")
def prima_vqvae(
    table: TableArgument,
    folder: CacheArgument,
    out: OutArgument,
    run_config: RunConfig = None,
    prospective_from: Prospective = None,
    validation_share: ValidationShare = 0.1,
    split_seed: SplitSeed = 0,
) -> None:
    """Train Prima's tokenizer on the training studies' blocks: vqvae.pth and tokenizer.json."""
    tell_progress()
    with mended():
        from training.config import read_config
        from training.data.splits import Split
        from training.prima.vqvae.recipe import TokenizerRun, train

        division = divide(table, prospective_from, validation_share, split_seed)
        mine = [study for study, split in division.items() if split is Split.TRAIN]
        train(folder, mine, read_config(run_config, TokenizerRun), out)
    typer.echo(f"tokenizer written to {out}")


@app.command("prima-cache")
def prima_cache(
    table: TableArgument,
    folder: CacheArgument,
    tokenizer: TokenizerArgument,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Run every MR study through Prima's tokenizer once; a stopped run goes on."""
    with mended():
        from inference.neurovfm.weights import read_json
        from inference.prima.loading import build_tokenizer
        from training.data.table import read_table
        from training.prima.cache import cache_latents
        from training.prima.vqvae.recipe import CONFIG, WEIGHTS
        from training.runtime import take_place

        rows = [row for row in read_table(table) if row.modality in ("", "MR")]
        with take_place(device) as place, bar("encoding", len(rows)) as progress:
            settings = read_json(tokenizer / CONFIG)
            model = build_tokenizer(settings, tokenizer / WEIGHTS, place.device)
            report = cache_latents(rows, folder, model, progress)
    typer.echo(f"{report.stored} studies stored, {report.known} were there")
    _tell_refused(report.refused)


@app.command("prima-names")
def prima_names(
    table: TableArgument,
    folder: CacheArgument,
    out: OutArgument,
    run_config: RunConfig = None,
    prospective_from: Prospective = None,
    validation_share: ValidationShare = 0.1,
    split_seed: SplitSeed = 0,
) -> None:
    """Teach Prima's series-name encoder which name belongs to which images."""
    tell_progress()
    with mended():
        from training.config import read_config
        from training.data.splits import Split
        from training.prima.series_names.recipe import SeriesNamesRun, train

        division = divide(table, prospective_from, validation_share, split_seed)
        mine = [study for study, split in division.items() if split is Split.TRAIN]
        train(folder, mine, read_config(run_config, SeriesNamesRun), out)
    typer.echo(f"series-name encoder written to {out}")


@app.command("prima-summaries")
def prima_summaries(
    table: TableArgument,
    out: Annotated[Path, typer.Argument(help="CSV table to write, with the column summary.")],
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible server, without /v1.")],
    model: Annotated[str, typer.Option(help="Name of the model there.")],
) -> None:
    """Let a language model inside the house shorten the reports; a stopped run goes on.

    Reports are patient data: a server outside the house's networks is refused.
    """
    with mended():
        from inference.report.errors import DraftError
        from inference.report.house import House
        from inference.report.triage import HttpReasoner, ReasonerSettings
        from training.data.table import read_table, write_table
        from training.prima.summaries import summarise

        rows = read_table(table)
        try:
            client = HttpReasoner(ReasonerSettings(endpoint, model, House()))
            with bar("summarising", len(rows)) as progress:
                done = summarise(rows, client, out.with_suffix(".jsonl"), progress)
            client.close()
        except DraftError as error:
            common.fail(str(error), common.ExitCode.PEER)
        write_table(out, done)
    typer.echo(f"{sum(bool(row.summary) for row in done)} summaries written to {out}")


@app.command("prima-clip")
def prima_clip(
    table: TableArgument,
    folder: CacheArgument,
    out: OutArgument,
    names: Annotated[
        Path | None, typer.Option(help="Run of prima-names to begin with; else from nothing.")
    ] = None,
    run_config: RunConfig = None,
    prospective_from: Prospective = None,
    validation_share: ValidationShare = 0.1,
    split_seed: SplitSeed = 0,
) -> None:
    """Train Prima's study model against the table's reports (column report, or summary)."""
    tell_progress()
    with mended():
        from training.config import read_config
        from training.data.splits import Split
        from training.data.table import read_table
        from training.prima.clip.recipe import ClipRun, train

        division = divide(table, prospective_from, validation_share, split_seed)
        mine = [row for row in read_table(table) if division[row.study] is Split.TRAIN]
        train(folder, mine, read_config(run_config, ClipRun), out, names)
    typer.echo(f"study model written to {out}")


@app.command("prima-heads")
def prima_heads(
    table: TableArgument,
    folder: CacheArgument,
    model: ModelArgument,
    out: OutArgument,
    pack: Annotated[Path | None, typer.Option(help="Also write this pack; must not exist.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of the run of prima-vqvae, for the pack.")
    ] = None,
    name: NameOption = "site-prima",
    version: VersionOption = "0.1.0",
    run_config: RunConfig = None,
    prospective_from: Prospective = None,
    validation_share: ValidationShare = 0.1,
    split_seed: SplitSeed = 0,
) -> None:
    """Train diagnosis, referral and priority heads on the frozen study model.

    Columns referral_<name> are referrals, priority_<level> levels of priority, all other labels
    diagnoses.
    """
    if pack is not None and (pack.exists() or tokenizer is None):
        common.fail("--pack needs a new folder and --tokenizer", common.ExitCode.USAGE)
    tell_progress()
    with mended():
        from inference.prima.importing import Identity
        from training.config import read_config
        from training.data.table import read_table
        from training.prima.heads.recipe import HeadsRun, train, write_pack

        division = divide(table, prospective_from, validation_share, split_seed)
        config = read_config(run_config, HeadsRun)
        heads = train(folder, read_table(table), division, model, config, out)
        if pack is not None and tokenizer is not None and _first():
            identity = Identity(name, version, "Trained at this site", "unlicensed")
            write_pack(heads, model, tokenizer, out, pack, identity)
    found = [*heads.diagnoses, *heads.referrals, *([heads.priority] if heads.priority else [])]
    rows = [
        {"label": head.name, "auroc": head.auroc, "threshold": head.threshold} for head in found
    ]
    common.show(rows, as_json=False, title="on the validation studies")
    for label in heads.left_out:
        typer.echo(f"left out: {label}: the validation studies cannot tell it")
    typer.echo(f"heads written to {out}")


@app.command("instruction")
def instruction(
    conversations: Annotated[Path, typer.Argument(help="Conversations JSON.")],
    folder: CacheArgument,
    encoder: Annotated[Path, typer.Argument(help="Encoder folder in the official layout.")],
    language_model: Annotated[Path, typer.Argument(help="Hugging Face model directory.")],
    out: OutArgument,
    before: Annotated[
        Path | None, typer.Option(help="Run of the stage before; stage 2 goes on from it.")
    ] = None,
    prompt: Annotated[
        Path | None, typer.Option(help="Wording to teach, as a pack's prompt.json.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Table of studies, for conversations that name images.")
    ] = None,
    pack: Annotated[Path | None, typer.Option(help="Also write this pack; must not exist.")] = None,
    name: NameOption = "site-findings",
    version: VersionOption = "0.1.0",
    run_config: RunConfig = None,
) -> None:
    """Tune connector (stage 1) and language model (stage 2) on conversations about studies."""
    if pack is not None and pack.exists():
        common.fail(f"{pack}: exists already; choose another folder", common.ExitCode.USAGE)
    tell_progress()
    with mended():
        from inference.neurovfm.official import Identity
        from inference.report.prompt import PromptStyle
        from training.config import read_config
        from training.data.shards import Cache
        from training.data.table import read_table
        from training.instruction import recipe
        from training.instruction.conversations import read_conversations

        style = PromptStyle.read(prompt) if prompt else PromptStyle.default()
        rows = read_table(table) if table else []
        given = read_conversations(conversations, rows)
        earlier = before / recipe.MODEL if before else None
        parts = recipe.Parts(encoder, language_model, style, earlier)
        config = read_config(run_config, recipe.InstructionRun)
        recipe.tune(Cache(folder), given, parts, config, out)
        if pack is not None and _first():
            identity = Identity(name, version, "Trained at this site")
            recipe.write_pack(out / recipe.MODEL, pack, identity)
    typer.echo(f"findings model written to {out / recipe.MODEL}")


def _first() -> bool:
    """Whether this process writes what all made together."""
    return os.environ.get("RANK", "0") == "0"


def _tell_refused(refused: Mapping[str, str]) -> None:
    for study, reason in refused.items():
        typer.echo(f"  {study}: {reason}", err=True)

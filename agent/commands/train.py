"""`worklist-agent train`: from a table of studies to a pack, stage after stage."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.commands import common

HELP = """Train models on this site's own studies.

A table (CSV or Parquet) names the studies: columns study, path, patient, and as far as known
modality, date, sex, age, scanner, site, report, split; every other column is a label (1, 0, empty).

  worklist-agent train table studies.csv            write such a table from the agent's own spool

  worklist-agent train cache studies.csv cache/     tokenize the studies once

  worklist-agent train voljepa studies.csv cache/ run/     pretrain an encoder

  worklist-agent train probes studies.csv cache/ run/encoder pack/     heads, and a pack

  worklist-agent evaluate pack/ studies.csv report/     numbers, pictures, model card

Drafts: train instruction. Prima: prima-blocks, prima-vqvae, prima-cache, prima-names,
prima-summaries, prima-clip, prima-heads, in this order; see docs/training.md.

Runs go on where they were stopped. Several GPUs: torchrun --nproc-per-node=8 -m agent train ..."""

app = typer.Typer(help=HELP, no_args_is_help=True)

TableArgument = Annotated[Path, typer.Argument(help="Table of studies, .csv or .parquet.")]
CacheArgument = Annotated[Path, typer.Argument(help="Folder of the token cache.")]
RunConfig = Annotated[
    Path | None, typer.Option("--run-config", help="TOML file of the run; defaults as published.")
]
Prospective = Annotated[
    dt.datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="Studies of this day or later are kept apart."),
]
ValidationShare = Annotated[float, typer.Option(help="Share of the patients that validate.")]
SplitSeed = Annotated[int, typer.Option(help="Changes which patients validate.")]


@app.command("table")
def table(
    out: Annotated[Path, typer.Argument(help="CSV file to write; must not exist.")],
    config: common.ConfigOption = None,
) -> None:
    """Write a table of the studies in the agent's spool; patients under keyed pseudonyms.

    Labels are for you to fill in. The file tells which studies were examined when: keep it inside.
    """
    from agent import training_table

    loaded = common.load_config(config)
    if out.exists():
        common.fail(f"{out}: exists already; choose another name", common.ExitCode.USAGE)
    with common.database(loaded) as sessions, common.refusals():
        rows = training_table.export(sessions, loaded.storage.data_dir)
    with mended():
        from training.data.table import write_table

        write_table(out, rows)
    typer.echo(f"{len(rows)} studies written to {out}")


@app.command("cache")
def cache(
    table: TableArgument,
    folder: CacheArgument,
    workers: Annotated[int, typer.Option(min=1, help="Processes of one thread each.")] = 1,
) -> None:
    """Tokenize every study of the table once; a stopped run goes on where it was."""
    with mended():
        from training.data.build import build_cache
        from training.data.table import read_table

        rows = read_table(table)
        with bar("tokenizing", len(rows)) as progress:
            report = build_cache(rows, folder, workers, progress)
    typer.echo(
        f"{report.stored} studies stored, {report.known} were there, {len(report.refused)} refused"
    )
    for study, reason in report.refused.items():
        typer.echo(f"  {study}: {reason}", err=True)


@app.command("voljepa")
def voljepa(
    table: TableArgument,
    folder: CacheArgument,
    out: Annotated[Path, typer.Argument(help="Folder of the run; encoder/ is written below it.")],
    run_config: RunConfig = None,
    prospective_from: Prospective = None,
    validation_share: ValidationShare = 0.1,
    split_seed: SplitSeed = 0,
) -> None:
    """Pretrain an encoder by Vol-JEPA on the training studies."""
    tell_progress()
    with mended():
        from training.config import read_config
        from training.data.shards import Cache
        from training.data.splits import Split
        from training.voljepa.recipe import PretrainConfig, pretrain

        division = divide(table, prospective_from, validation_share, split_seed)
        tokens = Cache(folder)
        mine = [s for s in tokens.studies.values() if division.get(s.study) is Split.TRAIN]
        made = pretrain(tokens, mine, read_config(run_config, PretrainConfig), out)
    typer.echo(f"encoder written to {made}")


@app.command("probes")
def probes(
    table: TableArgument,
    folder: CacheArgument,
    encoder: Annotated[Path, typer.Argument(help="Encoder folder in the official layout.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new pack; must not exist.")],
    name: Annotated[str, typer.Option(help="Name of the pack.")] = "site-model",
    version: Annotated[str, typer.Option(help="Version of the pack.")] = "0.1.0",
    title: Annotated[str, typer.Option(help="Title of the pack.")] = "Trained at this site",
    labels: Annotated[
        Path | None, typer.Option(help="TOML of display names, acuity and codes of own labels.")
    ] = None,
    run_config: RunConfig = None,
    prospective_from: Prospective = None,
    validation_share: ValidationShare = 0.1,
    split_seed: SplitSeed = 0,
) -> None:
    """Train attentive heads on the frozen encoder and write a pack that the agent runs."""
    if out.exists():
        common.fail(f"{out}: exists already; choose another folder", common.ExitCode.USAGE)
    tell_progress()
    with mended():
        from training.config import read_config
        from training.data.shards import Cache
        from training.data.table import read_table
        from training.probes.recipe import ProbeRun, train_pack
        from training.probes.train import ProbeConfig
        from training.probes.wording import read_wording

        division = divide(table, prospective_from, validation_share, split_seed)
        run = ProbeRun(name, version, title, read_config(run_config, ProbeConfig))
        site = read_wording(labels) if labels else None
        heads = train_pack(Cache(folder), read_table(table), division, encoder, run, out, site)
    rows = [
        {
            "modality": head.modality,
            "label": label,
            "auroc": fitted.auroc,
            "threshold": fitted.threshold,
            "temperature": fitted.temperature,
            "positives": fitted.positives,
            "negatives": fitted.negatives,
        }
        for head in heads
        for label, fitted in zip(head.labels, head.fitted, strict=False)
    ]
    common.show(rows, as_json=False, title="on the validation studies")
    for head in heads:
        for label, why in head.left_out.items():
            typer.echo(f"left out: {head.modality} {label}: {why}")
    typer.echo(f"pack written to {out}")


def evaluate(
    pack: Annotated[Path, typer.Argument(help="Folder of the pack.")],
    table: TableArgument,
    out: Annotated[Path, typer.Argument(help="Folder for evaluation.html and evaluation.json.")],
    split: Annotated[
        str, typer.Option(help="train, validation, prospective, or all studies of the table.")
    ] = "all",
    card: Annotated[bool, typer.Option(help="Put the numbers into the pack as its card.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    prospective_from: Prospective = None,
    validation_share: ValidationShare = 0.1,
    split_seed: SplitSeed = 0,
) -> None:
    """Run a pack over labelled DICOM studies and report how good it is, and for whom.

    Ranking and decisions of each label with intervals, calibration, priority confusion, groups by
    sex, age, scanner, site and weekday with their gaps. Patients stay under the table's pseudonyms.
    """
    with mended():
        from inference import packs
        from inference.engine import Engine
        from training.data.table import read_table
        from training.evaluation import document, predictions, summary

        rows = read_table(table)
        division = divide(table, prospective_from, validation_share, split_seed)
        chosen = rows if split == "all" else [r for r in rows if division[r.study] == split]
        if not chosen:
            common.fail(f"no study of {table.name} is in the set {split!r}", common.ExitCode.USAGE)
        manifest = packs.load_manifest(pack)
        kept = out / f"predictions-{manifest.digest[:16]}.jsonl"
        with bar("analysing", len(chosen)) as progress:
            answers = predictions.predict(
                Engine([pack], device), manifest.name, chosen, kept, progress
            )
        numbers = summary.evaluate_pack(manifest, chosen, answers, rows, division)
        _, page = document.write_report(numbers, out, manifest.notice)
        if card:
            document.write_card(numbers, pack)
    told = "" if numbers.mean_auroc is None else f", mean AUROC {numbers.mean_auroc:.3f}"
    typer.echo(f"{numbers.studies} studies analysed{told}")
    typer.echo(f"written: {page}")


def divide(
    table: Path, prospective_from: dt.datetime | None, share: float, seed: int
) -> dict[str, Any]:
    """The set of every study of the table."""
    from training.data.splits import SplitRules, split_studies
    from training.data.table import read_table

    day = prospective_from.date() if prospective_from else None
    return dict(split_studies(read_table(table), SplitRules(day, share, seed)))


def tell_progress() -> None:
    """Show what a recipe logs."""
    from agent.observability import logs
    from agent.settings import LogSettings

    logs.configure(LogSettings(format="console", level="info"))


@contextmanager
def mended() -> Iterator[None]:
    """Turn what cannot work into its message and the documented status."""
    from training.data.errors import DataError
    from training.runtime import RunError

    with common.refusals():
        try:
            yield
        except (DataError, RunError) as error:
            common.fail(str(error))


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int, int, float], None]]:
    """A progress bar; what it gives is told (done, of, seconds left)."""
    from rich.progress import Progress

    with Progress(transient=True) as shown:
        task = shown.add_task(title, total=total)

        def progress(done: int, of: int, _left_s: float) -> None:
            shown.update(task, completed=total - of + done)

        yield progress

"""`worklist-agent vllm`: the servers that write drafts - install, serve and check them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import common

if TYPE_CHECKING:
    from agent.config import Config
    from agent.vllm.command import Serving
    from agent.vllm.environment import Environment

app = typer.Typer(help="Install, serve and check vLLM, which drafts reports.", no_args_is_help=True)
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        help="Environment of vLLM. Default: vllm in the data directory.",
        show_default=False,
    ),
]


@app.command("install")
def install(
    cpu: Annotated[
        bool, typer.Option("--cpu/--gpu", help="Which build; --cpu is for tests and development.")
    ] = False,
    folder: FolderOption = None,
    config: common.ConfigOption = None,
) -> None:
    """Make vLLM's own environment from the lock file and prove that it can be imported.

    About 2.5 GB and some minutes. The agent's own environment is not touched.
    """
    from agent.vllm import environment

    flavour = environment.Flavour.CPU if cpu else environment.Flavour.GPU
    place = _environment(folder, common.load_config(config))
    with common.refusals():
        version = environment.install(place, flavour, lambda line: typer.echo(line, err=True))
    typer.echo(f"vLLM {version} ({flavour}) is installed in {place.folder}")


@app.command("serve")
def serve(
    pack: Annotated[
        str | None, typer.Option(help="Name of the pack. Default: report.pack.", show_default=False)
    ] = None,
    folder: FolderOption = None,
    host: Annotated[str | None, typer.Option(help="Default: of the first endpoint.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: of the first endpoint.")] = None,
    tensor_parallel: Annotated[int, typer.Option(help="GPUs that share the model.")] = 1,
    gpu_memory: Annotated[float, typer.Option(help="Share of GPU memory to take.")] = 0.9,
    max_model_len: Annotated[
        int | None, typer.Option(help="Tokens of prompt and answer. Default: 4096 at most.")
    ] = None,
    kv_cache_mib: Annotated[int, typer.Option(help="On a CPU: memory for attention.")] = 4096,
    dry_run: Annotated[bool, typer.Option(help="Print the command and leave.")] = False,
    config: common.ConfigOption = None,
) -> None:
    """Serve a pack's language model for drafting, and keep it running.

    Stop with Ctrl-C or SIGTERM: the whole process group ends.
    """
    from agent.vllm import environment

    settings = common.load_config(config)
    place = _environment(folder, settings)
    installed = place.installed()
    flavour = installed[0] if installed else environment.Flavour.GPU
    with common.refusals():
        serving = _serving(settings, pack, flavour, host, port)
        serving = _sized(serving, tensor_parallel, gpu_memory, max_model_len, kv_cache_mib)
        if dry_run:
            typer.echo(serving.shown(place.program))
            return
        place.require()
        _supervise(serving, place)


@app.command("check")
def check(config: common.ConfigOption = None, as_json: common.JsonOption = False) -> None:
    """Ask every endpoint what it is and can do; exit status 5 if one is not fit for drafting."""
    from agent.vllm import checking

    settings = common.load_config(config)
    with common.refusals():
        rows = checking.check(settings)
    common.show(rows, as_json=as_json, title="vLLM servers")
    if any(row["problem"] for row in rows):
        raise typer.Exit(common.ExitCode.PEER)


def _environment(folder: Path | None, config: Config) -> Environment:
    from agent.vllm import environment

    return environment.Environment(
        folder.absolute() if folder else environment.default_folder(config.storage.data_dir)
    )


def _serving(
    config: Config, pack: str | None, flavour: object, host: str | None, port: int | None
) -> Serving:
    from agent.vllm import command
    from agent.vllm.environment import Flavour

    serving = command.of_pack(config, pack or config.report.pack, Flavour(str(flavour)))
    return command.placed(serving, host, port)


def _sized(
    serving: Serving,
    tensor_parallel: int,
    gpu_memory: float,
    max_model_len: int | None,
    kv_cache_mib: int,
) -> Serving:
    from dataclasses import replace

    return replace(
        serving,
        tensor_parallel=tensor_parallel,
        gpu_memory=gpu_memory,
        max_model_len=max_model_len or serving.max_model_len,
        kv_cache_mib=kv_cache_mib,
    )


def _supervise(serving: Serving, place: Environment) -> None:
    import os
    import signal

    from agent.vllm import checking
    from agent.vllm.supervisor import Supervisor

    command = [str(place.program), *serving.arguments()]
    supervisor = Supervisor(
        command,
        serving.environment(os.environ),
        checking.health(serving),
        say=lambda line: typer.echo(line, err=True),
        fault=checking.nan_fault(serving),
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: supervisor.stop())
    typer.echo(f"starting {serving.name} at http://{serving.host}:{serving.port}", err=True)
    supervisor.run()

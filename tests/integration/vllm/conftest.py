"""A real vLLM server on the CPU, kept by our own supervisor, serving the golden tiny Qwen3."""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from factories import golden, language_models

from agent.vllm import checking
from agent.vllm.command import Serving
from agent.vllm.environment import Environment, Flavour, default_folder
from agent.vllm.supervisor import Supervisor, Watch
from inference.report import house
from inference.report.assembler import PromptAssembler
from inference.report.prompt import PromptStyle
from inference.report.tokens import VisualTokens
from inference.report.vllm.breaker import Breaker
from inference.report.vllm.client import Patience, VllmClient
from inference.report.vllm.drafter import Recipe, VllmDrafter
from inference.report.vllm.pool import Pool, Replica
from inference.report.vllm.safety import EmbeddingLimits
from inference.report.vllm.schema import Bounds

NAME, KEY, WIDTH = "tiny", "a key of the tests", 64
BOUNDS = Bounds(max_findings=2, max_finding_chars=20, max_exam_chars=12)
START_S = 240.0
REPOSITORY = Path(__file__).resolve().parents[3]


def folder_of_vllm() -> Path:
    """Where the environment is looked for."""
    named = os.environ.get("WORKLIST_VLLM_ENV")
    return Path(named) if named else default_folder(REPOSITORY / "var")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with the reason, unless asked for and possible."""
    place = folder_of_vllm()
    asked = "WORKLIST_VLLM_ENV" in os.environ or "vllm" in str(config.option.markexpr)
    reason = ""
    if not asked:
        reason = "asked for by -m vllm or WORKLIST_VLLM_ENV"
    elif not (place / "bin" / "vllm").is_file():
        reason = "no vLLM environment; make one with `worklist-agent vllm install --cpu`"
    elif not (golden.case("n4_vlm") / "checkpoint" / "language_model").is_dir():
        reason = "the golden language model is not here (WORKLIST_AGENT_GOLDEN)"
    if reason:
        for item in items:
            if item.get_closest_marker("vllm"):
                item.add_marker(pytest.mark.skip(reason=reason))


@dataclass
class Running:
    """A supervised server and how to ask it."""

    supervisor: Supervisor
    serving: Serving
    log: Path
    clients: list[VllmDrafter] = dataclasses.field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.serving.port}"

    def http(self) -> httpx.Client:
        """A client with the key."""
        return house.client(house.House(), api_key=KEY, timeout=httpx.Timeout(60))

    def client(self, patience: Patience | None = None, urls: tuple[str, ...] = ()) -> VllmClient:
        """A fresh client: nothing is known of the server yet."""
        replicas = [Replica(url, Breaker(3, 2.0)) for url in urls or (self.url,)]
        pool = Pool(replicas, max_concurrency=8)
        return VllmClient(self.http(), pool, NAME, WIDTH, patience or Patience(60.0))

    def drafter(self, **changes: Any) -> VllmDrafter:
        """A drafter with the tests' recipe."""
        patience = changes.pop("patience", None)
        recipe = Recipe(
            model=NAME,
            shown="golden 1",
            limits=EmbeddingLimits(WIDTH, 900, 1000.0),
            bounds=BOUNDS,
            max_tokens=200,
            dtype="float32",
        )
        made = VllmDrafter(self.client(patience), dataclasses.replace(recipe, **changes))
        self.clients.append(made)
        return made

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = START_S) -> None:
        """Wait for a condition, with a deadline."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                words = self.log.read_text(errors="replace")[-2000:]
                raise AssertionError(f"{what}: not within {seconds} s\n{words}")
            time.sleep(0.02)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden language model as vLLM's CPU kernels can run it."""
    folder = tmp_path_factory.mktemp("vllm") / "language_model"
    return language_models.servable(golden.case("n4_vlm") / "checkpoint/language_model", folder)


@pytest.fixture(scope="session")
def environment() -> Environment:
    """The environment under test."""
    return Environment(folder_of_vllm())


@pytest.fixture(scope="session")
def server(
    model: Path, environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """One server for the whole run; tests that kill it wait until it serves again."""
    log = tmp_path_factory.mktemp("vllm-log") / "vllm.log"
    serving = Serving(
        model=model,
        name=NAME,
        flavour=Flavour.CPU,
        port=_free_port(),
        dtype="float32",
        max_model_len=4096,
        kv_cache_mib=64,
        api_key=KEY,
    )
    with log.open("wb") as output:
        supervisor = Supervisor(
            [str(environment.program), *serving.arguments()],
            serving.environment(os.environ),
            checking.health(serving),
            Watch(start_s=START_S, poll_s=0.1, first_delay_s=0.2, stop_s=10.0),
            output,
            fault=checking.nan_fault(serving, every_s=2.0),
        )
        thread = threading.Thread(target=supervisor.run)
        thread.start()
        running = Running(supervisor, serving, log)
        try:
            running.wait(supervisor.ready.is_set, "the first start")
            yield running
        finally:
            for one in running.clients:
                one.close()
            supervisor.stop()
            thread.join()


@pytest.fixture(scope="session")
def style() -> PromptStyle:
    """Our own wording."""
    return PromptStyle.default()


@pytest.fixture(scope="session")
def assembler(model: Path, style: PromptStyle) -> PromptAssembler:
    """Writes whole prompts for that model."""
    return PromptAssembler.load(model, style)


def study(seed: int, series: int = 2) -> VisualTokens:
    """Visual tokens of no study in particular."""
    values: npt.NDArray[np.float32] = (
        np.random.default_rng(seed).normal(0, 0.2, (series, 8, WIDTH)).astype(np.float32)
    )
    return VisualTokens(tuple(f"1.2.{seed}.{n}" for n in range(series)), values)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

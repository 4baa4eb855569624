"""Drafting by transformers in this process beside vLLM on the CPU: the same tiny model, one run.

    WORKLIST_VLLM_ENV=DIR python bench/report.py [--repeats 3] [--out docs/benchmarks-report.md]

The model is the golden tiny Qwen3 (2 layers, width 64): what is measured is everything around a
language model, not the model. Both ends get the same prompts of embeddings and the same schema
and take turns; the table shows medians. Their tokens are compared: a faster engine that writes
something else would be no result.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from factories import golden, language_models  # noqa: E402

from agent.vllm import checking  # noqa: E402
from agent.vllm.command import Serving  # noqa: E402
from agent.vllm.environment import Environment, Flavour, default_folder  # noqa: E402
from agent.vllm.supervisor import Supervisor, Watch  # noqa: E402
from inference.report import house  # noqa: E402
from inference.report.assembler import PromptAssembler  # noqa: E402
from inference.report.decoding import Decoding  # noqa: E402
from inference.report.language_model import LanguageModel  # noqa: E402
from inference.report.prompt import PromptStyle  # noqa: E402
from inference.report.tokens import VisualTokens  # noqa: E402
from inference.report.vllm import http, payload, safety, schema  # noqa: E402

WIDTH, QUERIES, SERIES, STUDIES, TOKENS, REAL_WIDTH = 64, 64, 4, 8, 64, 4096
BOUNDS = schema.Bounds(max_findings=2, max_finding_chars=20, max_exam_chars=12)
INTRODUCTION = (
    "# Benchmark of report drafts",
    "",
    "Written by `python bench/report.py --out docs/benchmarks-report.md`; see",
    "[bench/README.md](../bench/README.md). The language model is the golden tiny Qwen3 (2 layers,",
    "width 64, random weights): these numbers tell what surrounds a model - HTTP, constraint,",
    "scheduling - and nothing of an 8-billion-parameter model on a GPU, which was not measured.",
)
Ids = list[int]
#: A prompt, and whether its answer follows the schema -> the answer's tokens.
Engine = Callable[[np.ndarray, bool], Ids]


@dataclass(frozen=True)
class Row:
    """Medians of one engine at one load."""

    engine: str
    at_once: int
    draft_s: float
    total_s: float
    tokens_per_s: float


def main() -> None:
    """Measure, compare, write."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    place = Environment(Path(os.environ.get("WORKLIST_VLLM_ENV") or default_folder(ROOT / "var")))
    place.require()
    with tempfile.TemporaryDirectory() as folder:
        source = golden.case("n4_vlm") / "checkpoint" / "language_model"
        model = language_models.servable(source, Path(folder) / "model")
        assembler = PromptAssembler.load(model, PromptStyle.default())
        prompts = [assembler.assemble(_study(n)).embeds for n in range(STUDIES)]
        assembly = _assembly(assembler, arguments.repeats)
        local = _local(LanguageModel.load(model))
        with _serving(model, place, Path(folder) / "vllm.log") as (server, start_s):
            engines = {"transformers": local, "vLLM (CPU)": server}
            same = sum(local(one, True) == server(one, True) for one in prompts)
            rows = _rows(engines, prompts, arguments.repeats)
    text = _page(assembly, rows, same, start_s, len(prompts[0]))
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _study(seed: int, series: int = SERIES, width: int = WIDTH) -> VisualTokens:
    values = np.random.default_rng(seed).normal(0, 0.2, (series, QUERIES, width))
    return VisualTokens(tuple(f"1.2.{n}" for n in range(series)), values.astype(np.float32))


def _assembly(assembler: PromptAssembler, repeats: int) -> list[tuple[str, float]]:
    """Milliseconds from visual tokens to a prompt, and from a prompt of real size to a payload."""
    found = []
    for series in (1, 4, 12):
        tokens = _study(0, series)
        spent = _median(lambda t=tokens: assembler.assemble(t), repeats * 5)
        found.append((f"prompt of {series} series (width {WIDTH})", spent * 1e3))
    real = _study(0, 12, REAL_WIDTH).tokens.reshape(-1, REAL_WIDTH)
    limits = safety.EmbeddingLimits(REAL_WIDTH, len(real))
    spent = _median(lambda: safety.check_embeddings(real, limits), repeats)
    found.append((f"check of {len(real)} x {REAL_WIDTH} embeddings", spent * 1e3))
    spent = _median(lambda: payload.encode(real, "bfloat16"), repeats)
    found.append((f"bytes of {len(real)} x {REAL_WIDTH} embeddings, bfloat16", spent * 1e3))
    return found


def _local(model: LanguageModel) -> Engine:
    """As the agent runs it: one draft at a time."""
    turn = threading.Lock()
    form = schema.report_schema(BOUNDS)

    def generate(embeds: np.ndarray, constrained: bool) -> Ids:
        mask = torch.ones((1, len(embeds)), dtype=torch.long)
        least = 3 if constrained else TOKENS
        decoding = Decoding(max_new_tokens=200 if constrained else TOKENS, min_new_tokens=least)
        with turn:
            return model.generate(
                torch.from_numpy(embeds)[None], mask, decoding, form if constrained else None
            )[0]

    return generate


@contextmanager
def _serving(model: Path, place: Environment, log: Path) -> Iterator[tuple[Engine, float]]:
    """A vLLM server, and the seconds until it served."""
    serving = Serving(
        model=model,
        name="tiny",
        flavour=Flavour.CPU,
        port=18_000 + os.getpid() % 10_000,
        dtype="float32",
        max_model_len=1024,
        kv_cache_mib=64,
    )
    with log.open("wb") as output:
        supervisor = Supervisor(
            [str(place.program), *serving.arguments()],
            serving.environment(os.environ),
            checking.health(serving),
            Watch(poll_s=0.2),
            output,
        )
        thread = threading.Thread(target=supervisor.run)
        began = time.monotonic()
        thread.start()
        try:
            if not supervisor.ready.wait(300):
                raise SystemExit(log.read_text()[-2000:])
            yield _server(f"http://127.0.0.1:{serving.port}"), time.monotonic() - began
        finally:
            supervisor.stop()
            thread.join()


def _server(url: str) -> Engine:
    client = house.client(house.House(), timeout=httpx.Timeout(60))
    form = schema.response_format("report", schema.report_schema(BOUNDS))

    def generate(embeds: np.ndarray, constrained: bool) -> Ids:
        free = payload.Decoding(TOKENS, extra={"ignore_eos": True})
        decoding = payload.Decoding(200, form) if constrained else free
        body = payload.completion("tiny", payload.encode(embeds), decoding)
        answer = http.post(client, f"{url}/v1/completions", body, client.timeout)
        return list(answer["choices"][0]["token_ids"])

    return generate


def _rows(engines: dict[str, Engine], prompts: list[np.ndarray], repeats: int) -> list[Row]:
    """Both engines in turn, one study and all at once."""
    rows = []
    for at_once in (1, STUDIES):
        spent: dict[str, list[tuple[float, float, float]]] = {name: [] for name in engines}
        for _ in range(repeats + 1):
            for name, engine in engines.items():
                spent[name].append(_round(engine, prompts[:at_once]))
        for name, found in spent.items():
            middle = [statistics.median(column) for column in zip(*found[1:], strict=True)]
            rows.append(Row(name, at_once, *middle))
    return rows


def _round(engine: Engine, prompts: list[np.ndarray]) -> tuple[float, float, float]:
    """Median seconds to a draft, seconds to all of them, tokens a second without a schema."""

    def draft(prompt: np.ndarray) -> float:
        engine(prompt, True)
        return time.monotonic() - began

    with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
        began = time.monotonic()
        each = list(pool.map(draft, prompts))
        total = time.monotonic() - began
        began = time.monotonic()
        written = sum(len(ids) for ids in pool.map(lambda one: engine(one, False), prompts))
        return statistics.median(each), total, written / (time.monotonic() - began)


def _median(work: Callable[[], object], repeats: int) -> float:
    spent = []
    for _ in range(repeats):
        began = time.monotonic()
        work()
        spent.append(time.monotonic() - began)
    return statistics.median(spent)


def _page(
    assembly: list[tuple[str, float]], rows: list[Row], same: int, start_s: float, rows_in: int
) -> str:
    machine = (
        f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, load average {os.getloadavg()[0]:.1f} at the end"
    )
    head = "| engine | studies at once | median seconds to a draft | seconds to all | tokens/s |"
    lines = [
        *INTRODUCTION,
        "",
        f"Machine: {machine} (other work ran beside it).",
        f"vLLM served {start_s:.0f} s after its start.",
        "",
        "## Before the language model",
        "",
        "| step | milliseconds |",
        "|---|---|",
        *(f"| {name} | {spent:.1f} |" for name, spent in assembly),
        "",
        f"## Drafts ({rows_in} tokens of prompt, greedy, JSON schema)",
        "",
        head,
        "|---|---|---|---|---|",
        *(
            f"| {one.engine} | {one.at_once} | {one.draft_s:.2f} | {one.total_s:.2f} "
            f"| {one.tokens_per_s:.0f} |"
            for one in rows
        ),
        "",
        f"Tokens a second are of {TOKENS} tokens a study without a schema; transformers drafts one",
        "study at a time, as the agent runs it.",
        f"{same} of {STUDIES} drafts are the same token for token in both engines.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

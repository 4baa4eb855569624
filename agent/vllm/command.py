"""The command line that serves a pack's language model, as a value: shown, tested, then run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from agent.config import Config
from agent.drafting import backends
from agent.vllm.environment import Flavour
from agent.vllm.errors import VllmError
from inference import packs

MIB = 1 << 20
#: A study of twenty series needs about 1500 tokens and its draft 512.
LONGEST = 4096
#: Guidance was measured to keep to bounded schemas; without white space answers do not pad.
STRUCTURED = {"backend": "guidance", "disable_any_whitespace": True}
#: Never ask the network for a model, never report usage, count requests whose numbers are NaN.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_COMPUTE_NANS_IN_LOGITS": "1",
}
#: On a CPU the first request would compile for 26 s; it needs a compiler, too.
CPU_ENVIRONMENT = {"TORCH_COMPILE_DISABLE": "1"}
#: What vLLM must not inherit from the agent.
WITHHELD = ("WORKLIST_AGENT_",)


@dataclass(frozen=True)
class Serving:
    """What is served, and how.

    Attributes:
        model: directory of the language model.
        name: under which it is served.
        flavour: CPU or GPU.
        dtype: of weights and activations.
        max_model_len: tokens of prompt and answer together.
        max_num_seqs: answers written at once.
        tensor_parallel: GPUs that share the model.
        gpu_memory: share of each GPU's memory that vLLM takes.
        kv_cache_mib: on a CPU: memory for attention; without it vLLM takes nearly all there is.
        api_key: asked of every client; given through the environment, where `ps` does not show it.
        chat_template: file, where the model's own directory has none and chat is used.
        extra: further arguments of `vllm serve`.
    """

    model: Path
    name: str
    flavour: Flavour
    host: str = "127.0.0.1"
    port: int = 8000
    dtype: str = "bfloat16"
    max_model_len: int = 4096
    max_num_seqs: int = 8
    tensor_parallel: int = 1
    gpu_memory: float = 0.9
    kv_cache_mib: int = 4096
    api_key: str = field(default="", repr=False)
    chat_template: Path | None = None
    extra: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """After the program's name."""
        return [
            "serve",
            str(self.model),
            *("--served-model-name", self.name),
            *("--host", self.host),
            *("--port", str(self.port)),
            *("--dtype", self.dtype),
            *("--max-model-len", str(self.max_model_len)),
            *("--max-num-seqs", str(self.max_num_seqs)),
            "--enable-prompt-embeds",
            *("--structured-outputs-config", json.dumps(STRUCTURED, separators=(",", ":"))),
            *("--scheduling-policy", "priority"),
            *("--disable-uvicorn-access-log",),
            *(("--chat-template", str(self.chat_template)) if self.chat_template else ()),
            *(self._cpu() if self.flavour is Flavour.CPU else self._gpu()),
            *self.extra,
        ]

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Of the process: what is inherited, less our own keys, plus what keeps vLLM quiet."""
        kept = {k: v for k, v in inherited.items() if not k.startswith(WITHHELD)}
        # an empty text would be read as a number, and fail
        kept = {k: v for k, v in kept.items() if v or not k.startswith("VLLM_")}
        return kept | self.added()

    def added(self) -> dict[str, str]:
        """What is set beyond what is inherited; the key included."""
        own = ENVIRONMENT | (CPU_ENVIRONMENT if self.flavour is Flavour.CPU else {})
        return own | ({"VLLM_API_KEY": self.api_key} if self.api_key else {})

    def shown(self, program: Path) -> str:
        """As a person would type it; the key is not shown."""
        pairs = {k: "..." if k == "VLLM_API_KEY" else v for k, v in self.added().items()}
        told = [f"{key}={shlex.quote(value)}" for key, value in pairs.items()]
        return " ".join([*told, shlex.join([str(program), *self.arguments()])])

    def _cpu(self) -> tuple[str, ...]:
        batched = str(max(self.max_model_len, 1024))
        return (
            "--enforce-eager",
            *("--max-num-batched-tokens", batched),
            *("--kv-cache-memory-bytes", str(self.kv_cache_mib * MIB)),
        )

    def _gpu(self) -> tuple[str, ...]:
        return (
            *("--tensor-parallel-size", str(self.tensor_parallel)),
            *("--gpu-memory-utilization", f"{self.gpu_memory:g}"),
        )


def of_pack(config: Config, pack: str, flavour: Flavour) -> Serving:
    """How a configured pack's language model is served, as the configuration says.

    Raises:
        ConfigError, PackError, VllmError: there is no such pack, or it has no language model.
    """
    if pack not in config.packs:
        known = ", ".join(sorted(config.packs)) or "none"
        raise VllmError(f"no pack {pack!r} is configured; known: {known}. Give --pack")
    folder = config.packs[pack].path
    section = packs.load_manifest(folder).report
    if section is None:
        raise VllmError(f"pack {pack}: has no [report] section, hence no language model to serve")
    model = folder / section.language_model
    settings = config.report
    first = urlsplit(settings.endpoints[0])
    return Serving(
        model=model.absolute(),
        name=backends.served_name(settings, pack),
        flavour=flavour,
        host=first.hostname or "127.0.0.1",
        port=first.port or 8000,
        dtype=settings.dtype,
        max_model_len=min(backends.positions(model), LONGEST),
        max_num_seqs=settings.max_concurrency,
        api_key=backends.read_key(settings.api_key_file),
    )


def placed(serving: Serving, host: str | None, port: int | None) -> Serving:
    """The same elsewhere."""
    return replace(serving, host=host or serving.host, port=port or serving.port)

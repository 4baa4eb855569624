"""The `[report]` and `[triage]` sections of config.toml: who drafts, where, within what limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, PositiveFloat, PositiveInt, model_validator

from agent.section import Section
from agent.settings_base import Network


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("an endpoint is http://host:port or https://host:port")
    if parts.username or parts.password or parts.query:
        raise ValueError("no login and no query in an endpoint; the key comes from api_key_file")
    return value.rstrip("/").removesuffix("/v1")


Endpoint = Annotated[str, AfterValidator(_endpoint)]


class ReportSettings(Section):
    """Drafting of reports."""

    enabled: bool = False
    backend: Literal["template", "local", "vllm"] = "template"
    """Who writes: our wording of the findings, a model in this process, or vLLM servers."""
    pack: str = ""
    """Name in [packs] of the pack whose [report] section is used; needed by local and vllm."""
    endpoints: tuple[Endpoint, ...] = ("http://127.0.0.1:8000",)
    """vLLM replicas that serve that pack's language model; the least busy one is asked."""
    model: str = ""
    """Name under which they serve it; empty = the pack's name."""
    api_key_file: Path | None = None
    timeout_s: PositiveFloat = 120.0
    """For one draft, attempts and waiting included; the priority never waits for it."""
    connect_timeout_s: PositiveFloat = 5.0
    max_concurrency: PositiveInt = 8
    """Drafts under way at once on each replica."""
    max_attempts: PositiveInt = 3
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Of the served model, and of embeddings on their way there."""
    stream: bool = False
    """Ask for tokens as they come: a server that hangs is noticed after stall_s."""
    stall_s: PositiveFloat = 20.0
    break_after: PositiveInt = 3
    """Failures in a row after which a replica is left alone ..."""
    break_s: PositiveFloat = 30.0
    """... for this long."""
    allowed_networks: tuple[Network, ...] = ()
    """Networks (CIDR) of the house besides loopback and private addresses; embeddings are patient
    data and go nowhere else."""
    max_tokens: PositiveInt = 512
    max_findings: PositiveInt = 24
    max_finding_chars: PositiveInt = 400
    max_exam_chars: PositiveInt = 120
    push_unsupported: bool = False
    """Send sentences, too, that the guard found unsupported (marked);
    they are shown in any case."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.backend != "template" and not self.pack:
            raise ValueError(f"backend {self.backend!r} needs pack, a name of [packs]")
        if self.backend == "vllm" and not self.endpoints:
            raise ValueError("backend 'vllm' needs at least one of endpoints")
        return self


class TriageSettings(Section):
    """How soon a study should be read, in the opinion of a reasoning model that sees the text."""

    enabled: bool = False
    endpoint: Endpoint = "http://127.0.0.1:8000"
    """Any OpenAI-compatible server."""
    model: str = ""
    """Name of the model there; needed when enabled."""
    api_key_file: Path | None = None
    timeout_s: PositiveFloat = 60.0
    max_tokens: PositiveInt = 1024
    """Reasoning included."""
    max_attempts: PositiveInt = 2
    allowed_networks: tuple[Network, ...] = ()
    """Networks (CIDR) of the house besides loopback and private addresses."""
    off_site_host: str = ""
    """The one host outside these that may be asked, by name ..."""
    data_may_leave: bool = False
    """... if this says so too: findings, age, sex and indication then leave the house."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.enabled and not self.model:
            raise ValueError("triage needs model, the name of the model at its endpoint")
        if bool(self.off_site_host) != self.data_may_leave:
            raise ValueError("off_site_host and data_may_leave = true belong together")
        return self

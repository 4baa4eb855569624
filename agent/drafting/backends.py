"""From the configuration to whoever writes drafts: this process, vLLM servers, or templates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import Config
from agent.errors import ConfigError
from agent.settings_report import ReportSettings
from inference.packs import Manifest

if TYPE_CHECKING:
    from inference.report.drafter import Drafter
    from inference.report.pack_section import ReportSection
    from inference.report.triage import HttpReasoner
    from inference.report.vllm.drafter import Recipe, VllmDrafter

#: Rows of the language model's table from which its usual length is told.
NORM_SAMPLE = 256


def drafter(config: Config, manifests: Mapping[str, Manifest]) -> Drafter | None:
    """The configured drafter; None = drafts are written by our templates.

    Raises:
        ConfigError: what the configuration names cannot draft.
        InferenceError: the pack's files cannot be used.
    """
    settings = config.report
    if not settings.enabled or settings.backend == "template":
        return None
    manifest = manifests[settings.pack]
    section = manifest.report
    if section is None:
        raise ConfigError(f"report.pack: {settings.pack} has no [report] section; it cannot draft")
    folder = config.packs[settings.pack].path
    shown = f"{manifest.name} {manifest.version}"
    if settings.backend == "local":
        return _local(config, folder, section, shown)
    return vllm(settings, folder, section, shown)


def vllm(settings: ReportSettings, folder: Path, section: ReportSection, shown: str) -> VllmDrafter:
    """A drafter that asks the configured servers; asks nothing yet.

    Raises:
        ConfigError: the key cannot be read.
        InferenceError: an endpoint is outside the house, or the pack's files cannot be used.
    """
    import httpx

    from inference.report import house
    from inference.report.vllm.breaker import Breaker
    from inference.report.vllm.client import Patience, VllmClient
    from inference.report.vllm.drafter import VllmDrafter
    from inference.report.vllm.pool import Pool, Replica

    recipe = _recipe(settings, folder, section, shown)
    client = house.client(
        house.House(settings.allowed_networks),
        api_key=read_key(settings.api_key_file),
        # of inspections and metrics; a generation brings its own
        timeout=httpx.Timeout(settings.stall_s, connect=settings.connect_timeout_s),
    )
    replicas = [
        Replica(url, Breaker(settings.break_after, settings.break_s)) for url in settings.endpoints
    ]
    patience = Patience(
        timeout_s=settings.timeout_s,
        max_attempts=settings.max_attempts,
        connect_s=settings.connect_timeout_s,
        stream=settings.stream,
        stall_s=settings.stall_s,
    )
    pool = Pool(replicas, settings.max_concurrency)
    width = recipe.limits.width
    return VllmDrafter(VllmClient(client, pool, recipe.model, width, patience), recipe)


def served_name(settings: ReportSettings, pack: str) -> str:
    """Name under which servers serve a pack's language model."""
    return settings.model or pack


def positions(language_model: Path) -> int:
    """Tokens that a language model can hold, prompt and answer together.

    Raises:
        ConfigError: its config.json does not say.
    """
    file = language_model / "config.json"
    try:
        count = json.loads(file.read_text(encoding="utf-8"))["max_position_embeddings"]
        return int(count)
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{file}: holds no max_position_embeddings; restore the pack") from None


def read_key(path: Path | None) -> str:
    """The key in a file; empty = none is used.

    Raises:
        ConfigError: the file cannot be read or is empty.
    """
    if path is None:
        return ""
    try:
        key = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); see api_key_file") from None
    if not key:
        raise ConfigError(f"{path}: is empty; write the key into it")
    return key


def _recipe(settings: ReportSettings, folder: Path, section: ReportSection, shown: str) -> Recipe:
    from inference.report.assembler import PromptAssembler
    from inference.report.embeddings import EmbeddingRows
    from inference.report.pack_section import Transport
    from inference.report.prompt import PromptStyle
    from inference.report.vllm.drafter import Recipe
    from inference.report.vllm.safety import EmbeddingLimits, norm_bound
    from inference.report.vllm.schema import Bounds

    style = PromptStyle.read(folder / section.prompt)
    model = folder / section.language_model
    assemble = None
    if section.transport is Transport.PROMPT_EMBEDS:
        turn = section.empty_assistant_turn
        assemble = PromptAssembler.load(model, style, empty_assistant_turn=turn).assemble
    table = EmbeddingRows.find(model)
    sample = table.rows(range(0, table.count, max(1, table.count // NORM_SAMPLE)))
    rows = max(1, positions(model) - settings.max_tokens)
    return Recipe(
        model=served_name(settings, settings.pack),
        shown=shown,
        limits=EmbeddingLimits(table.width, rows, norm_bound(sample)),
        bounds=Bounds(settings.max_findings, settings.max_finding_chars, settings.max_exam_chars),
        max_tokens=settings.max_tokens,
        dtype=settings.dtype,
        style=style,
        assemble=assemble,
    )


def _local(config: Config, folder: Path, section: ReportSection, shown: str) -> Drafter:
    import torch

    from inference import devices
    from inference.report.language_model import LanguageModel
    from inference.report.local import LocalDrafter
    from inference.report.prompt import PromptStyle

    device = devices.choose(config.inference.device)
    name = "float32" if device.type == "cpu" else config.report.dtype
    model = LanguageModel.load(
        folder / section.language_model,
        device,
        getattr(torch, name),
        rounded_buffers=section.rounded_buffers,
    )
    style = PromptStyle.read(folder / section.prompt)
    turn = section.empty_assistant_turn
    return LocalDrafter.of(model, style, shown, empty_assistant_turn=turn)


def reasoner(config: Config) -> HttpReasoner | None:
    """The configured reasoning model for triage; None = there is no triage.

    Raises:
        ConfigError: the key cannot be read.
        InferenceError: the endpoint is outside the house and that was not permitted.
    """
    from inference.report.house import House
    from inference.report.triage import HttpReasoner, ReasonerSettings

    settings = config.triage
    if not settings.enabled:
        return None
    return HttpReasoner(
        ReasonerSettings(
            endpoint=settings.endpoint,
            model=settings.model,
            house=House(settings.allowed_networks, settings.off_site_host, settings.data_may_leave),
            api_key=read_key(settings.api_key_file),
            timeout_s=settings.timeout_s,
            max_tokens=settings.max_tokens,
            max_attempts=settings.max_attempts,
        )
    )

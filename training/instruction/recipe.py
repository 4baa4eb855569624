"""Two stages of instruction tuning: the connector alone, then connector and language model.

The encoder stays frozen: its features are computed once. Only answers are learned from; padding is
not attended to. Ends in the official directory (config.json, vision_encoder.pt,
vision_connector.pt, language_model/) with the wording beside it as prompt.json.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import torch

from inference.checkpoints import load_strictly, read_state_dict
from inference.neurovfm import weights
from inference.neurovfm.official import Identity
from inference.neurovfm.tokens import DEFAULT_STATS
from inference.neurovfm.weights import LoadedEncoder
from inference.report import importing, official
from inference.report.connector import VisionConnector, read_config
from inference.report.language_model import LanguageModel
from inference.report.prompt import PromptStyle, PromptWriter
from training import loop, runtime
from training.data.shards import Cache
from training.instruction.conversations import Conversation
from training.instruction.lessons import Lessons
from training.instruction.network import (
    InstructionLoss,
    is_learned,
    learned,
    merged,
    prepare_language_model,
)
from training.probes.features import StudyFeatures, embed_studies
from training.runtime import Place, RunError
from training.voljepa.schedules import CosineWarmup

log = structlog.get_logger(__name__)

MODEL, PROMPT = "model", "prompt.json"
CONNECTOR_CONFIG: Mapping[str, Any] = {
    "serie_perceiver": {
        "perceiver_cfg": {"num_queries": 64, "num_layers": 6, "num_heads": 8, "dropout": 0.0}
    },
    "mlp_hidden_dim": None,
    "mlp_drop": 0.0,
}


@dataclass(frozen=True)
class InstructionRun:
    """One stage; the defaults are the published ones.

    Attributes:
        stage: 1 = the connector learns, 2 = the language model too.
        lora_rank: in stage 2, low-rank additions instead of the whole model; 0 = the whole.
        connector: official `vision_connector_cf` of a new connector.
        batch: conversations of a forward pass, on each process.
        accumulate: passes in an optimizer step.
        peak, start, final: learning rates; the cosine falls to `final` at mid-run and rises again.
        checkpointing: compute the language model's activations again in the backward pass.
    """

    stage: int = 1
    lora_rank: int = 0
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    connector: Mapping[str, Any] = field(default_factory=lambda: CONNECTOR_CONFIG)
    batch: int = 1
    accumulate: int = 8
    epochs: int = 1
    peak: float = 2e-5
    start: float = 2e-6
    final: float = 2e-9
    warm_up: float = 0.03
    cycles: float = 1.0
    weight_decay: float = 0.0
    clip: float = 1.0
    checkpointing: bool = False
    seed: int = 0
    save_every: int = 200
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True)
class Parts:
    """What a stage begins with.

    Attributes:
        encoder: folder in the official layout; its encoder stays frozen.
        language_model: Hugging Face directory.
        style: the wording to teach.
        before: official directory of the stage before; its connector and language model are taken.
    """

    encoder: Path
    language_model: Path
    style: PromptStyle
    before: Path | None = None


def tune(
    cache: Cache,
    conversations: Sequence[Conversation],
    parts: Parts,
    config: InstructionRun,
    out: Path,
) -> list[float]:
    """Run one stage and write the official directory ``model/`` in `out`.

    Returns:
        The loss of every optimizer step of this call.

    Raises:
        RunError: nothing to teach, an unknown stage, a damaged checkpoint.
        PackError: a part is missing or does not fit.
    """
    if config.stage not in (1, 2):
        raise RunError(f"stage {config.stage} is unknown; use 1 (connector) or 2 (and the model)")
    with runtime.take_place(config.device, config.precision) as place:
        torch.manual_seed(config.seed)
        encoder = weights.load_encoder_files(
            parts.encoder / weights.CONFIG_FILE, weights.weights_file(parts.encoder)
        )
        language = _load_language(parts, config, place)
        connector = _connector(parts, config, encoder, language.width)
        writer = PromptWriter(parts.style, language.vocabulary)
        passes = config.batch, config.accumulate
        pad = language.endings.pad
        lessons = Lessons(cache, conversations, writer, pad, passes, config.seed, place)
        lessons.features = _features(encoder, cache, lessons.studies, out, place)
        model = prepare_language_model(
            language.model,
            learns=config.stage == 2,
            rank=config.lora_rank,
            alpha=config.lora_alpha,
            drop=config.lora_dropout,
        )
        if config.checkpointing:
            model.gradient_checkpointing_enable()
        module = InstructionLoss(connector, model, writer.image_id).to(place.device).train()
        losses = _run(module, lessons, config, out, place)
        if place.first:
            export(module, encoder, parts, _settings(parts, config), out / MODEL)
    return losses


def export(
    module: InstructionLoss,
    encoder: LoadedEncoder,
    parts: Parts,
    connector: Mapping[str, Any],
    target: Path,
) -> None:
    """Write the official directory, whole or not at all."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    settings: dict[str, Any] = {
        "vision_encoder_cf": weights.read_json(parts.encoder / weights.CONFIG_FILE),
        "vision_connector_cf": dict(connector),
        "language_model_cf": {
            "model_name_or_path": parts.language_model.name,
            "attn_implementation": "sdpa",
            "lora_params": None,
            "max_seq_len": parts.style.max_tokens,
            "system_prompt": parts.style.system,
        },
    }
    if encoder.stats != DEFAULT_STATS:
        settings["normalization_stats"] = [list(values) for values in encoder.stats]
    (unfinished / weights.CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    state = {official.PREFIX + k: v.cpu() for k, v in encoder.model.state_dict().items()}
    torch.save({"state_dict": state}, unfinished / official.ENCODER)
    connected = {k: v.detach().cpu() for k, v in module.connector.state_dict().items()}
    torch.save({"state_dict": connected}, unfinished / official.CONNECTOR)
    folder = unfinished / official.LANGUAGE_MODEL
    merged(module.language_model).to(torch.bfloat16).save_pretrained(folder)
    source = _language_folder(parts)
    for kind in importing.KEPT:
        for file in source.glob(kind):
            if file.suffix != ".safetensors" and not (folder / file.name).exists():
                shutil.copyfile(file, folder / file.name)
    wording = json.dumps(dataclasses.asdict(parts.style), indent=1, ensure_ascii=False)
    (unfinished / PROMPT).write_text(wording + "\n", encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)


def write_pack(model: Path, target: Path, identity: Identity) -> None:
    """A pack of a tuned directory, asked as it was taught: no closed turn, no rounded tables.

    Raises:
        PackError: `target` exists, or a part does not fit.
    """
    style = PromptStyle.read(model / PROMPT)
    quirks = importing.Quirks(empty_assistant_turn=False, rounded_buffers=False)
    importing.import_findings_model(model, target, identity, style, quirks)


def _run(
    module: InstructionLoss, lessons: Lessons, config: InstructionRun, out: Path, place: Place
) -> list[float]:
    total = lessons.steps(config.epochs)
    rate = CosineWarmup(
        config.peak, config.start, config.final, total, config.warm_up, config.cycles
    )
    steps = loop.Steps(total, rate.at, config.seed, config.clip, save_every=config.save_every)
    optimizer = torch.optim.AdamW(learned(module), lr=config.peak, weight_decay=config.weight_decay)
    kept = is_learned(module)
    trained = loop.Trained(module, optimizer, lambda name: name in kept)
    return loop.run(trained, lessons.of, steps, out, place)


def _features(
    encoder: LoadedEncoder, cache: Cache, studies: Sequence[str], out: Path, place: Place
) -> dict[str, StudyFeatures]:
    chosen = [cache.studies[name] for name in studies]
    folder = out / "features"
    embed_studies(encoder.model, cache, loop.share(chosen, place), folder, place, encoder.stats)
    loop.wait(place)
    found = embed_studies(encoder.model, cache, chosen, folder, place, encoder.stats)
    encoder.model.cpu()
    return {one.study: one for one in found}


def _load_language(parts: Parts, config: InstructionRun, place: Place) -> LanguageModel:
    """Frozen weights may be half as wide; those that learn are whole."""
    frozen = config.stage == 1 or config.lora_rank > 0
    half = frozen and place.device.type == "cuda"
    dtype = torch.bfloat16 if half else torch.float32
    return LanguageModel.load(_language_folder(parts), place.device, dtype)


def _language_folder(parts: Parts) -> Path:
    return parts.before / official.LANGUAGE_MODEL if parts.before else parts.language_model


def _settings(parts: Parts, config: InstructionRun) -> Mapping[str, Any]:
    if parts.before is None:
        return config.connector
    given: Mapping[str, Any] = weights.read_json(parts.before / weights.CONFIG_FILE)
    found: Mapping[str, Any] = given["vision_connector_cf"]
    return found


def _connector(
    parts: Parts, config: InstructionRun, encoder: LoadedEncoder, width: int
) -> VisionConnector:
    sizes = read_config(_settings(parts, config), encoder.model.config.embed_dim, width)
    connector = VisionConnector(sizes)
    if parts.before is not None:
        file = parts.before / official.CONNECTOR
        load_strictly(connector, read_state_dict(file), file.name)
    return connector

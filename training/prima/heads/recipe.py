"""Heads on the frozen study model: embeddings once, three networks, official files, and a pack."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import structlog

from inference.checkpoints import read_state_dict, sha256_of
from inference.neurovfm.weights import read_json
from inference.prima import importing, loading
from inference.prima.config import Components, read_heads
from inference.prima.hiervit_sizes import read_head_counts
from inference.prima.model import PrimaModel
from training import loop, runtime
from training.data.splits import Split
from training.data.table import StudyRow
from training.prima import cache
from training.prima.clip.recipe import ENCODER, OFFICIAL
from training.prima.heads import labels
from training.prima.heads.fitting import Embeddings, HeadConfig, KeptHead, fit
from training.prima.sampling import NO_DROPOUT, show
from training.prima.vqvae import recipe as tokenizer_recipe
from training.runtime import Place, RunError

log = structlog.get_logger(__name__)

DIAGNOSES_JSON, REFERRALS_JSON = "diagnosis_heads.json", "referral_heads.json"


@dataclass(frozen=True)
class HeadsRun:
    """Training of all heads.

    Attributes:
        network: of each of the three networks.
        device, precision: as in every run.
    """

    network: HeadConfig = field(default_factory=HeadConfig)
    device: str = "auto"
    precision: str = "fp32"


@dataclass(frozen=True)
class TrainedHeads:
    """What a run made.

    Attributes:
        diagnoses, referrals: each label's head.
        priority: the network of the levels; None where the table has no levels.
        left_out: labels that validation cannot tell.
    """

    diagnoses: tuple[KeptHead, ...]
    referrals: tuple[KeptHead, ...]
    priority: KeptHead | None
    left_out: tuple[str, ...]


def train(
    folder: Path,
    rows: Sequence[StudyRow],
    division: Mapping[str, Split],
    model: Path,
    config: HeadsRun,
    out: Path,
) -> TrainedHeads:
    """Train on a latent cache and write official head files and both heads JSONs.

    Args:
        folder: of the latent cache.
        rows: of the table, with labels.
        division: the set of each study.
        model: folder of the main training's run.
        config: of the run.
        out: its folder.

    Raises:
        RunError: no training or validation study, or no label.
        DataError: the cache holds none of the studies.
    """
    files = cache.present(folder, [row.study for row in rows])
    mine, held = (
        [r for r in rows if r.study in files and division.get(r.study) is split]
        for split in (Split.TRAIN, Split.VALIDATION)
    )
    if not mine or not held:
        raise RunError(f"{len(mine)} training and {len(held)} validation studies: both are needed")
    columns = labels.read_columns(mine)
    with runtime.take_place(config.device, config.precision) as place:
        seen = embed([*mine, *held], files, model / ENCODER, out / "embeddings", place)
        both = seen[: len(mine)], seen[len(mine) :]

        def one(names: tuple[str, ...], prefix: str, kind: str) -> tuple[KeptHead, ...]:
            if not names:
                return ()
            truths = [labels.truth_of(part, names, prefix) for part in (mine, held)]
            levels = prefix == labels.PRIORITY
            if levels:
                truths = [labels.level_of(truth) for truth in truths]
            pairs = list(zip(both, truths, strict=True))
            kept = fit(
                names, pairs[0], pairs[1], config.network, out / kind, place, exclusive=levels
            )
            return tuple(kept)

        diagnoses = one(columns.diagnoses, "", "diagnoses")
        referrals = one(columns.referrals, labels.REFERRAL, "referral")
        priority = one(columns.priority, labels.PRIORITY, "priority")
        told = {head.name for head in (*diagnoses, *referrals)}
        left_out = tuple(n for n in (*columns.diagnoses, *columns.referrals) if n not in told)
        if place.first:
            _write_json(out / DIAGNOSES_JSON, diagnoses, columns.diagnoses)
            _write_json(out / REFERRALS_JSON, referrals, columns.referrals)
    return TrainedHeads(diagnoses, referrals, priority[0] if priority else None, left_out)


def write_pack(
    heads: TrainedHeads,
    model: Path,
    tokenizer: Path,
    out: Path,
    target: Path,
    identity: importing.Identity,
) -> None:
    """A pack of all parts, through the import of published files.

    Args:
        heads: of `train`.
        model: folder of the main training's run.
        tokenizer: folder of the tokenizer's run.
        out: folder of the heads' run.
        target: of the new pack; must not exist.
        identity: its name and version.

    Raises:
        RunError: the published layout needs diagnoses, referrals and a priority head.
        PackError: a part does not fit the others.
    """
    if not heads.diagnoses or not heads.referrals or heads.priority is None:
        raise RunError(
            "a Prima pack holds diagnoses, referrals and a priority head: the table also needs "
            f"columns {labels.REFERRAL}<name> and {labels.PRIORITY}<level> that validation can tell"
        )
    sources = importing.Sources(
        model=Components(
            clip=model / OFFICIAL,
            diagnoses=read_heads(out / DIAGNOSES_JSON),
            referrals=read_heads(out / REFERRALS_JSON),
            priority=heads.priority.file,
        ),
        tokenizer=tokenizer / tokenizer_recipe.WEIGHTS,
        tokenizer_config=tokenizer / tokenizer_recipe.CONFIG,
    )
    importing.import_official(sources, target, identity)


def embed(
    rows: Sequence[StudyRow], files: Mapping[str, Path], model: Path, folder: Path, place: Place
) -> Embeddings:
    """float32 [B, E] of every study by the frozen model; what lies in `folder` is not made again.

    Another model makes its own files: their folder is named after its weights.
    """
    weights = model / "model.safetensors"
    folder = folder / sha256_of(weights)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    counts = read_head_counts(read_json(model / "config.json"))
    visual = loading.build_visual(read_state_dict(weights), counts, model.name)
    frozen = PrimaModel(visual.to(place.device), {})
    places = [folder / f"{hashlib.sha256(r.study.encode()).hexdigest()[:32]}.npy" for r in rows]
    mine = loop.share(list(zip(rows, places, strict=True)), place)
    for number, (row, path) in enumerate(mine, start=1):
        if not path.is_file():
            made = _embedding(frozen, files[row.study])
            temporary = path.with_suffix(".tmp")
            with temporary.open("wb") as stream:
                np.save(stream, made)
            temporary.replace(path)
        if number % 100 == 0 or number == len(mine):
            log.info("studies_embedded", done=number, of=len(mine))
    loop.wait(place)
    return np.stack([np.load(path) for path in places])


def _embedding(model: PrimaModel, file: Path) -> Embeddings:
    study = show(cache.read_latents(file), NO_DROPOUT, np.random.default_rng(0))
    vectors = model.encode_all(study.series)
    made: Embeddings = model.encode_study(vectors, study.description).float().cpu().numpy()
    return made


def _write_json(file: Path, heads: Sequence[KeptHead], names: Sequence[str]) -> None:
    """The published form: name -> [labels file, [[checkpoint, output, threshold]]]."""
    listed = file.with_name(file.stem.replace("_heads", "_labels") + ".json")
    listed.write_text(json.dumps(list(names), indent=1) + "\n", encoding="utf-8")
    entries = {
        head.name: [
            listed.name,
            [[str(head.file.relative_to(file.parent)), head.index, head.threshold]],
        ]
        for head in heads
    }
    file.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
